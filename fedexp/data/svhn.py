"""House numbers from street views: digits in colour photographs, in two MATLAB files.

Addresses and checksums are torchvision's (`torchvision.datasets.SVHN`). Source: Y. Netzer et al.,
"Reading Digits in Natural Images with Unsupervised Feature Learning", NIPS Workshop on Deep
Learning and Unsupervised Feature Learning, 2011.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np

from fedexp.core.examples import Dataset, Split
from fedexp.data.assemble import assemble, check_sizes, image_shape, image_split, stratified
from fedexp.data.download import RemoteFile, damaged, intact
from fedexp.data.matlab import matlab_arrays

DIGITS = 10


@final
@dataclass(frozen=True)
class SVHN:
    """The cropped digits; validation is taken from the official training part, by class.

    The files are `data_dir`/SVHN/train_32x32.mat and test_32x32.mat; the third one ("extra") is not
    read.

    Args:
        name: the name in the config.
        input_shape: (channels, height, width) of an image.
        num_classes: how many classes there are.
        validation_size: examples taken from the training part.
        split_seed: decides which examples those are; apart from the run's seed.
    """

    name: str
    input_shape: tuple[int, ...]
    num_classes: int
    validation_size: int
    split_seed: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "input_shape", image_shape(self.input_shape))
        check_sizes(self.split_seed, validation_size=self.validation_size)

    def __call__(self, data_dir: Path) -> Dataset:
        """The dataset; raises InputError if a file is missing or damaged."""
        whole, test = (self._split(file) for file in self.files(data_dir))
        train, validation = stratified(whole, self.validation_size, self.split_seed)
        names = tuple(map(str, range(DIGITS)))
        return assemble(
            self.name, train, validation, test, names, self.input_shape, self.num_classes
        )

    def files(self, data_dir: Path) -> tuple[RemoteFile, ...]:
        """Training and test part."""
        from torchvision.datasets import SVHN as PUBLISHED

        return tuple(
            RemoteFile(data_dir / "SVHN" / filename, (url,), md5, self.name)
            for url, filename, md5 in (PUBLISHED.split_list[part] for part in ("train", "test"))
        )

    def _split(self, file: RemoteFile) -> Split:
        images, labels = matlab_arrays(intact(file), ("X", "y"), self.name)
        if images.ndim != 4 or images.dtype != np.uint8 or labels.dtype.kind not in "iu":
            reason = f"expected images and labels, found {images.dtype} {images.shape}"
            raise damaged(file.path, reason, self.name)
        y = labels.reshape(-1).astype(np.int64)
        y[y == DIGITS] = 0  # MATLAB counts from 1, and calls the zero 10
        x = images.transpose(3, 2, 0, 1)  # from [height, width, channels, n]
        return image_split(x, y, DIGITS, file.path, self.name, divisor=255)
