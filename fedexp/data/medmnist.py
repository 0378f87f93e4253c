"""The 2-D collections of MedMNIST v2, at 28x28 and in the three larger sizes of MedMNIST+.

Source: J. Yang et al., "MedMNIST v2: A large-scale lightweight benchmark for 2D and 3D biomedical
image classification", Scientific Data 10:41, 2023. Addresses, checksums and class names are those
of the `medmnist` package. For research and education, not for clinical use.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, final
from zipfile import BadZipFile

import numpy as np

from fedexp.core.checks import InputError, one_of
from fedexp.core.examples import Dataset, Split
from fedexp.data.assemble import assemble, image_shape, image_split, several_labels
from fedexp.data.download import RemoteFile, damaged, intact

SIZES = (28, 64, 128, 224)  # pixels a side; those above 28 are MedMNIST+


@final
@dataclass(frozen=True)
class MedMNIST:
    """One collection in its official training, validation and test parts.

    The file is `data_dir`/medmnist/`name`.npz, or `name`_64.npz and so on for the larger sizes. Its
    pixels are in memory once, as bytes. In a multi-label collection (chestmnist) an image has any
    number of labels.

    Args:
        name: the name in the config, which is the one in the `medmnist` package.
        input_shape: (channels, height, width) of an image; 1 channel is grey, 3 are RGB.
        num_classes: how many classes (or labels) there are.
        size: pixels a side: 28, 64, 128 or 224.
    """

    name: str
    input_shape: tuple[int, ...]
    num_classes: int
    size: int = 28

    def __post_init__(self) -> None:
        object.__setattr__(self, "input_shape", image_shape(self.input_shape))
        if self.size not in SIZES:
            raise InputError(f"must be one of {', '.join(map(str, SIZES))}", "size", self.size)
        one_of([name for name in published() if not name.endswith("3d")], name=self.name)

    def __call__(self, data_dir: Path) -> Dataset:
        """The dataset; raises InputError if the file is missing or damaged."""
        (file,) = self.files(data_dir)
        about = published()[self.name]
        class_names = tuple(about["label"].values())
        several = "multi-label" in about["task"]
        arrays = _arrays(file)

        def split(part: str) -> Split:
            images, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
            # Grey images have no channel axis, colour images have it last.
            channels_last = images[..., None] if images.ndim == 3 else images
            pixels = np.moveaxis(channels_last, -1, 1)
            if labels.ndim == 2 and labels.shape[1] == 1:
                labels = labels[:, 0]
            make = several_labels if several else image_split
            return make(pixels, labels, len(class_names), file.path, self.name, divisor=255)

        return assemble(
            self.name,
            split("train"),
            split("val"),
            split("test"),
            class_names,
            self.input_shape,
            self.num_classes,
        )

    def files(self, data_dir: Path) -> tuple[RemoteFile, ...]:
        """The one `.npz` file."""
        about = published()[self.name]
        suffix = "" if self.size == 28 else f"_{self.size}"
        path = data_dir / "medmnist" / f"{self.name}{suffix}.npz"
        of = self.name if self.size == 28 else f"{self.name} dataset.size={self.size}"
        return (RemoteFile(path, (about[f"url{suffix}"],), about[f"MD5{suffix}"], of),)


@cache
def published() -> Mapping[str, Mapping[str, Any]]:
    """What the `medmnist` package says about each collection, by name.

    Its table is read from its source: to import it makes a folder in the user's home.

    >>> published()["breastmnist"]["label"]
    {'0': 'malignant', '1': 'normal, benign'}
    """
    package = find_spec("medmnist")  # finds a package without importing it
    if package is None or package.origin is None:
        raise ModuleNotFoundError("no module named medmnist", name="medmnist")
    source = Path(package.origin).with_name("info.py").read_text(encoding="utf-8")
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "INFO":
            table: Mapping[str, Mapping[str, Any]] = ast.literal_eval(node.value)
            return table
    raise ImportError("medmnist/info.py has no table INFO", name="medmnist")


def _arrays(file: RemoteFile) -> Mapping[str, np.ndarray]:
    """The six arrays of an `.npz` file; raises InputError if it is not such a file."""
    names = [f"{part}_{kind}" for part in ("train", "val", "test") for kind in ("images", "labels")]
    path = intact(file)  # not in memory: the largest file has 12 GB
    try:
        # Unpickling runs whatever code the file holds.
        with open(path, "rb") as content, np.load(content, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in names}
    except (ValueError, KeyError, EOFError, OSError, BadZipFile) as error:
        reason = f"expected the plain arrays {', '.join(names)} ({error})"
        raise damaged(file.path, reason, file.dataset) from error
