"""Handwritten digits at 8x8, which come with scikit-learn: no file, no network.

Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
Repository, 1998 (the test part of it, as scikit-learn ships it).
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import final

import numpy as np

from fedexp.core.checks import InputError
from fedexp.core.examples import Dataset
from fedexp.data.assemble import assemble, check_sizes, image_shape, image_split, stratified
from fedexp.data.download import RemoteFile


@final
@dataclass(frozen=True)
class Digits:
    """1797 grey images of 10 digits, split by class into train, validation and test.

    Args:
        name: the name in the config.
        input_shape: (channels, height, width) of an image.
        num_classes: how many classes there are.
        validation_size: examples in the validation part.
        test_size: examples in the test part.
        split_seed: decides which examples go where; apart from the run's seed.

    >>> digits = Digits("digits", (1, 8, 8), 10, validation_size=180, test_size=360, split_seed=0)
    >>> dataset = digits(Path())
    >>> len(dataset.train), len(dataset.validation), len(dataset.test)
    (1257, 180, 360)
    """

    name: str
    input_shape: tuple[int, ...]
    num_classes: int
    validation_size: int
    test_size: int
    split_seed: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "input_shape", image_shape(self.input_shape))
        check_sizes(self.split_seed, validation_size=self.validation_size, test_size=self.test_size)

    def __call__(self, data_dir: Path) -> Dataset:
        """The dataset; `data_dir` is not looked at."""
        table = np.loadtxt(_file(), delimiter=",", dtype=np.uint8)  # 64 pixels and the digit
        class_names = tuple(str(digit) for digit in range(10))
        # Each pixel counts the dark points of a 4x4 block: 0 to 16.
        pixels, target = table[:, :-1].reshape(-1, 1, 8, 8), table[:, -1].astype(np.int64)
        source = "scikit-learn's digits"
        classes = len(class_names)
        whole = image_split(pixels, target, classes, source, self.name, divisor=16)
        rest, test = stratified(whole, self.test_size, self.split_seed, "test_size")
        train, validation = stratified(rest, self.validation_size, self.split_seed)
        return assemble(
            self.name, train, validation, test, class_names, self.input_shape, self.num_classes
        )

    def files(self, data_dir: Path) -> tuple[RemoteFile, ...]:
        """None: scikit-learn brings the images along."""
        return ()


def _file() -> Path:
    """Where scikit-learn has the table; it is not imported, which takes a second."""
    found = find_spec("sklearn")
    if found is None or not found.submodule_search_locations:
        raise InputError("scikit-learn, which brings the images along, is not installed")
    return Path(found.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"
