"""EMNIST: handwritten letters and digits of NIST's Special Database 19, in the form of MNIST.

One zip archive of gzipped IDX files, whose address, checksum and classes are torchvision's. It does
not say who wrote what. The MATLAB files of the same publisher do: with `writers` the parts are read
from those, and every writer is a site, as in FEMNIST (which LEAF made of the same database).

Images are stored on their sides; here they stand upright, which torchvision does not see to. The
letters count from 1 in their file; here from 0.

Sources: G. Cohen et al., "EMNIST: an extension of MNIST to handwritten letters", IJCNN 2017. S.
Caldas et al., "LEAF: A Benchmark for Federated Settings", 2018 (FEMNIST).
"""

from __future__ import annotations

import gzip
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import numpy as np
import torch

from fedexp.core.checks import InputError, one_of
from fedexp.core.examples import Dataset, Split
from fedexp.data.assemble import assemble, check_sizes, image_shape, image_split, stratified
from fedexp.data.download import RemoteFile, damaged, intact, present
from fedexp.data.matlab import matlab_arrays
from fedexp.data.mnist import idx_array

WITH_WRITERS = "https://biometrics.nist.gov/cs_links/EMNIST/matlab.zip"
SIDE = 28
SPLITS = ("byclass", "bymerge", "balanced", "letters", "digits", "mnist")
"""As torchvision has them, which takes a second to import."""


@final
@dataclass(frozen=True)
class EMNIST:
    """One of the ways in which EMNIST is cut; validation is taken from training, by class.

    Read from `data_dir`/EMNIST/raw/gzip.zip, where torchvision puts it. With `writers` from
    `data_dir`/EMNIST/matlab/emnist-SPLIT.mat, which has to be put there by hand: its publisher
    names no checksum.

    Args:
        name: the name in the config.
        split: byclass, bymerge, balanced, letters, digits or mnist.
        writers: whether each example says who wrote it: the sites.
        input_shape: (channels, height, width) of an image.
        num_classes: how many classes there are.
        validation_size: examples taken from the training part.
        split_seed: decides which examples those are; apart from the run's seed.
    """

    name: str
    split: str
    writers: bool
    input_shape: tuple[int, ...]
    num_classes: int
    validation_size: int
    split_seed: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "input_shape", image_shape(self.input_shape))
        one_of(SPLITS, split=self.split)
        check_sizes(self.split_seed, validation_size=self.validation_size)

    def __call__(self, data_dir: Path) -> Dataset:
        """The dataset; raises InputError if a file is missing or damaged."""
        names = self._class_names()
        if self.writers:
            whole, test, writers = self._with_writers(data_dir)
        else:
            whole, test = (self._split(data_dir, part) for part in ("train", "test"))
            writers = ()
        train, validation = stratified(whole, self.validation_size, self.split_seed)
        dataset = assemble(
            self.name, train, validation, test, names, self.input_shape, self.num_classes
        )
        return replace(dataset, site_names=writers)

    def files(self, data_dir: Path) -> tuple[RemoteFile, ...]:
        """The archive; nothing where it is not read."""
        from torchvision.datasets import EMNIST as PUBLISHED

        path = data_dir / "EMNIST" / "raw" / "gzip.zip"
        archive = RemoteFile(path, (PUBLISHED.url,), PUBLISHED.md5, self.name)
        return () if self.writers else (archive,)

    def _class_names(self) -> tuple[str, ...]:
        """torchvision's, without its name for a letter of number 0, which there is not."""
        from torchvision.datasets import EMNIST as PUBLISHED

        names = PUBLISHED.classes_split_dict[self.split]
        return tuple(name for name in names if name != "N/A")

    def _split(self, data_dir: Path, part: str) -> Split:
        (archive,) = self.files(data_dir)
        path = intact(archive)
        images, labels = (
            self._member(path, f"emnist-{self.split}-{part}-{kind}-ubyte", dimensions)
            for kind, dimensions in (("images-idx3", 3), ("labels-idx1", 1))
        )
        return self._upright(images, labels, path)

    def _member(self, archive: Path, name: str, dimensions: int) -> np.ndarray:
        try:
            with zipfile.ZipFile(archive) as files:
                content = gzip.decompress(files.read(f"gzip/{name}.gz"))
        except (KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
            reason = f"expected gzip/{name}.gz in it ({error})"
            raise damaged(archive, reason, self.name) from error
        return idx_array(content, dimensions, f"{name} in {archive}", self.name)

    def _upright(self, images: np.ndarray, labels: np.ndarray, source: Path) -> Split:
        """Images `[n, 28, 28]` on their sides, labels as in the file."""
        names = self._class_names()
        first = 1 if self.split == "letters" else 0
        y = labels.astype(np.int64) - first
        x = images.transpose(0, 2, 1)[:, None]
        return image_split(x, y, len(names), source, self.name, divisor=255)

    def _with_writers(self, data_dir: Path) -> tuple[Split, Split, tuple[str, ...]]:
        """Training and test part with their sites, and the names of these."""
        path = data_dir / "EMNIST" / "matlab" / f"emnist-{self.split}.mat"
        if not present(path):
            raise InputError(
                f"{path} is missing: take it out of {WITH_WRITERS} and put it there by hand; its "
                "publisher names no checksum, so it is not downloaded"
            )
        fields = ("images", "labels", "writers")
        names = tuple(f"dataset.{part}.{field}" for part in ("train", "test") for field in fields)
        arrays = matlab_arrays(path, names, self.name)
        wrote = [of.reshape(-1) for of in (arrays[2], arrays[5])]
        who, numbers = np.unique(np.concatenate(wrote), return_inverse=True)
        sites = torch.from_numpy(numbers.reshape(-1).astype(np.int64)).split(
            [len(w) for w in wrote]
        )
        parts = []
        for (images, labels, _), site in zip((arrays[:3], arrays[3:]), sites, strict=True):
            if images.ndim != 2 or images.shape[1] != SIDE**2 or len(site) != len(images):
                reason = f"expected images [n, {SIDE**2}] and n writers, found {images.shape}"
                raise damaged(path, reason, self.name)
            # Whole numbers come as floats where MATLAB stored doubles; so do pixels.
            x = images.reshape(-1, SIDE, SIDE).astype(np.uint8)
            parts.append(replace(self._upright(x, labels.reshape(-1), path), site=site))
        return parts[0], parts[1], tuple(f"writer {number}" for number in who.tolist())
