"""W1 to W5 of `benchmarks/workloads.py` as files that everybody can read.

W3 comes with the 2NN and with the FedAvg paper's CNN, as peers have it. All clients are honest:
everybody trains as many of them. Pixels are bytes, as image files have them; everybody trains on
them shifted and scaled to mean 0 and deviation 1.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from benchmarks.baselines import LR
from benchmarks.workloads import CLASSES, SHAPE, Case, cases, data_of, two_nn
from safetensors.torch import save_file
from torch import nn

from fedexp.core.examples import Split
from fedexp.core.normalise import Normalisation
from fedexp.models import cnn
from peers.shared import Workload

VALIDATION, TEST = 100, 1000  # rows


def all_cases(quick: bool = False) -> dict[str, Case]:
    """By key: W1, W2, W3, W3-CNN, W4, W4-CNN, W5; `quick`: few clients, for tests."""
    w1, w2, w3, w4, w4_cnn, w5 = cases(quick)
    torch.manual_seed(0)
    return {
        "W1": w1,
        "W2": w2,
        "W3": replace(w3, name="W3 2NN, 20 x 600, median", model=two_nn()),
        "W3-CNN": replace(w3, name="W3 CNN, 20 x 600, median", model=cnn(SHAPE, CLASSES)),
        "W4": w4,
        "W4-CNN": w4_cnn,
        "W5": w5,
    }


def write(case: Case, folder: Path) -> Workload:
    """The workload's folder; one that is there is taken as it is."""
    if not (folder / "workload.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        _write(case, folder)
    return Workload.read(folder)


def _write(case: Case, folder: Path) -> None:
    parts = _parts(case)
    scale = Normalisation.of(parts["train"])
    train, test = (scale(parts[name]) for name in ("train", "test"))
    edges = np.concatenate([[0], np.cumsum(case.sizes)])
    arrays = {"x": train.x, "y": train.y, "x_test": test.x, "y_test": test.y, "edges": edges}
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", np.asarray(array))
    start = {k: v.contiguous() for k, v in case.model.state_dict().items()}
    np.savez(folder / "start.npz", **{k: v.numpy() for k, v in start.items()})

    # What `fedexp run` reads: the bytes, which it shifts and scales itself.
    named = {f"x_{name}": part.x.numpy() for name, part in parts.items()}
    named |= {f"y_{name}": part.y.numpy() for name, part in parts.items()}
    np.savez(folder / "data.npz", **named)
    np.savez(folder / "shards.npz", *np.split(np.arange(edges[-1]), edges[1:-1]))
    save_file(start, folder / "start.safetensors")

    # Last: a folder with it is whole.
    convolves = any(isinstance(part, nn.Conv2d) for part in case.model.modules())
    facts = {
        "name": case.name,
        "model": "cnn" if convolves else "mlp",
        "batch_size": case.batch_size,
        "lr": LR,
        "per_round": len(case.cohort),
        "rule": type(case.rule).__name__.lower(),
        "private": case.private is not None,
    }
    (folder / "workload.json").write_text(json.dumps(facts, indent=1) + "\n")


def _parts(case: Case) -> dict[str, Split]:
    """Training, validation and test rows as bytes.

    The last two are two more clients of the benchmark's generator.
    """
    more = replace(case, sizes=np.concatenate([case.sizes, [VALIDATION, TEST]]))
    data, shards = data_of(more)
    pixels = (data.x * 51 + 127).clamp_(0, 255).to(torch.uint8)
    whole = Split(pixels, data.y, divisor=255)
    first, second = int(shards[-2][0]), int(shards[-1][0])
    return {
        "train": whole.between(0, first),
        "val": whole.between(first, second),
        "test": whole.between(second, len(whole)),
    }
