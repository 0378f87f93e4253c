"""The current folder of somebody who reads the documentation, with all that its commands name."""

import numpy as np
import pandas as pd
import torch
from torchvision.models import squeezenet1_1

from tests.support.commands import fedexp
from tests.support.composing import part
from tests.support.own_files import make_arrays, make_images, make_table

SMALL = ("debug=fast", "plots=false")


def make_readers_folder(folder):
    """Fill `folder`, which is the current one: the reader's files, runs and sweeps, models."""
    make_images(folder).rename("FOLDER")
    make_arrays(folder).rename("FILE.npz")
    table = pd.read_csv(make_table(folder))
    table.assign(COLUMN=table.label, outcome=table.label, ill=table.label).drop(
        columns="label"
    ).to_csv("FILE.csv", index=False)
    (folder / "patients.csv").write_bytes((folder / "FILE.csv").read_bytes())
    np.savez("rows.npz", north=np.arange(0, 600), south=np.arange(600, 1200))

    for name in ("federated_model", "mlp_model"):
        mlp = part("model", "mlp", "dataset=mnist")
        torch.save(
            {f"module.{key}": value for key, value in mlp.state_dict().items()}, f"{name}.pth"
        )
    save_weights(part("model", "resnet18", "dataset=bloodmnist"), "start.safetensors")
    torch.save(squeezenet1_1().state_dict(), "squeezenet1_1.pth")

    for run in ("outputs/2026-11-26/10-00-00", "outputs/2026-11-26/10-15-00", "RUN_A", "RUN_B"):
        ran("run", *SMALL, f"hydra.run.dir={run}")
    (folder / "RUN").symlink_to("RUN_A")
    ran("run", *SMALL, "dataset=breastmnist", "model=small_cnn", "hydra.run.dir=outputs/RUN")
    for sweep in ("sweep-1a2b3c4d", "SWEEP"):
        swept = ("seed=0,1", "aggregator=mean,median", f"hydra.sweep.dir=outputs/sweeps/{sweep}")
        ran("run", "-m", *SMALL, *swept)
    for run in ("honest", "post"):
        ran("run", "rounds=15", "record_updates=true", "plots=false", f"hydra.run.dir={run}")


def save_weights(model, path):
    from safetensors.torch import save_file

    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, path)


def ran(*arguments):
    done = fedexp(*arguments)
    assert done.returncode == 0, done.stderr
