"""Small data of a person's own in each form that is read, and the loaders of them."""

import numpy as np
import pandas as pd

from tests.support.composing import part
from tests.support.hospital_folder import make_hospital_folder

PATIENTS = {"north": 12, "south": 8, "clinic": 6}


def own_loader(name, folder, *overrides):
    """The loader `dataset=name` of small data made in `folder`."""
    make = {"images": make_images, "arrays": make_arrays, "table": make_table}[name]
    label = ["dataset.label=label"] if name == "table" else []
    return part("dataset", name, f"dataset.path={make(folder)}", *NULL, *label, *overrides)


NULL = ("dataset.input_shape=null", "dataset.num_classes=null")


def make_images(folder):
    make_hospital_folder(folder / "images", patients=PATIENTS)
    return folder / "images"


def make_arrays(folder):
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3 + 1
    x = np.clip(rng.normal(60 * y[:, None, None], 20, (60, 8, 8)), 0, 255).astype(np.uint8)
    site = np.where(np.arange(60) < 40, "north", "south")
    np.savez(folder / "own.npz", x=x, y=y, site=site, subject=np.arange(60) // 2)
    return folder / "own.npz"


def make_table(folder):
    rng = np.random.default_rng(0)
    label = np.where(np.arange(60) % 2, "ill", "well")
    frame = pd.DataFrame(
        {
            "age": rng.normal(np.where(label == "ill", 70, 50), 5).round(1),
            "sex": rng.choice(["f", "m"], 60),
            "hospital": np.where(np.arange(60) < 40, "north", "south"),
            "patient": np.arange(60) // 2,
            "label": label,
        }
    )
    frame.to_csv(folder / "own.csv", index=False)
    return folder / "own.csv"
