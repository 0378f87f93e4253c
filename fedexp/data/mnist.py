"""MNIST and the collections published in its form: four gzipped IDX files.

Addresses, checksums and class names are torchvision's, and written out here: to import it for them
takes more memory than the collection. The IDX format: two zero bytes, a code for
the type of number, the number of dimensions, each dimension as 4 bytes big-endian, then the
numbers (http://yann.lecun.com/exdb/mnist/).
"""

from __future__ import annotations

import gzip
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np

from fedexp.core.checks import one_of
from fedexp.core.examples import Dataset, Split
from fedexp.data.assemble import assemble, check_sizes, image_shape, image_split, stratified
from fedexp.data.download import RemoteFile, damaged, present, read, read_local

_UNSIGNED_BYTE = 8
"""The IDX code of the only type of number that these collections use."""


@dataclass(frozen=True)
class _Published:
    """Where a collection's files are, what they are, and what its classes are called."""

    mirrors: tuple[str, ...]
    md5: tuple[str, str, str, str]  # of `_FILES`
    classes: tuple[str, ...]


_FILES = (
    *("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    *("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
)

PUBLISHED: dict[str, _Published] = {
    "MNIST": _Published(
        (
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "http://yann.lecun.com/exdb/mnist/",
        ),
        (
            *("f68b3c2dcbeaaa9fbdd348bbdeb94873", "d53e105ee54ea40749a09fcbcd1e9432"),
            *("9fb629c4189551a2d022fa330f9573f3", "ec29112dd5afa0611ce80d1b7f02629c"),
        ),
        tuple("0123456789"),
    ),
    "FashionMNIST": _Published(
        ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
        (
            *("8d4fb7e6c68d591d4c3dfef9ec88bf0d", "25c81989df183df01b3e8a0aad5dffbe"),
            *("bef4ecab320f06d8554ea6380940ec79", "bb300cfdad3c16e7a12a480ee83cd310"),
        ),
        (
            *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
            *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        ),
    ),
}


@final
@dataclass(frozen=True)
class IDXImages:
    """A collection of grey images in IDX files, under `data_dir`/`folder`/raw.

    Of each file the uncompressed one is read if it is there, else the `.gz`, in memory: the folder
    may be read-only. The official test part is the test part; the validation part is taken from
    the official training part, by class.

    Args:
        name: the name in the config.
        folder: torchvision's name for the collection: MNIST or FashionMNIST.
        input_shape: (channels, height, width) of an image.
        num_classes: how many classes there are.
        validation_size: examples taken from the training part.
        split_seed: decides which examples those are; apart from the run's seed.
    """

    name: str
    folder: str
    input_shape: tuple[int, ...]
    num_classes: int
    validation_size: int
    split_seed: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "input_shape", image_shape(self.input_shape))
        one_of(list(PUBLISHED), folder=self.folder)
        check_sizes(self.split_seed, validation_size=self.validation_size)

    def __call__(self, data_dir: Path) -> Dataset:
        """The dataset; raises InputError if a file is missing or damaged."""
        class_names = PUBLISHED[self.folder].classes
        train_images, train_labels, test_images, test_labels = self._published_files(data_dir)
        whole = self._split(train_images, train_labels, len(class_names))
        test = self._split(test_images, test_labels, len(class_names))
        train, validation = stratified(whole, self.validation_size, self.split_seed)
        return assemble(
            self.name, train, validation, test, class_names, self.input_shape, self.num_classes
        )

    def files(self, data_dir: Path) -> tuple[RemoteFile, ...]:
        """The `.gz` files, but not those that lie there uncompressed."""
        files = self._published_files(data_dir)
        return tuple(file for file in files if not present(_unpacked(file)))

    def _published_files(self, data_dir: Path) -> tuple[RemoteFile, ...]:
        """Training images, training labels, test images, test labels: torchvision's order."""
        published = PUBLISHED[self.folder]
        raw = data_dir / self.folder / "raw"
        return tuple(
            RemoteFile(
                raw / filename,
                tuple(f"{mirror}{filename}" for mirror in published.mirrors),
                md5,
                self.name,
            )
            for filename, md5 in zip(_FILES, published.md5, strict=True)
        )

    def _split(self, images: RemoteFile, labels: RemoteFile, num_classes: int) -> Split:
        pixels = _numbers(images, n_dimensions=3)[:, None]
        y = _numbers(labels, n_dimensions=1)
        source = f"{_unpacked(images)} or {_unpacked(labels).name}"
        return image_split(pixels, y, num_classes, source, self.name, divisor=255)


def _unpacked(file: RemoteFile) -> Path:
    """Where the same file lies if somebody has uncompressed it."""
    return file.path.with_suffix("")


def _numbers(file: RemoteFile, n_dimensions: int) -> np.ndarray:
    """The array in an IDX file, uint8; raises InputError if it is not one, or not whole."""
    unpacked = _unpacked(file)
    if present(unpacked):
        return idx_array(read_local(unpacked), n_dimensions, unpacked, file.dataset)
    content = bytearray()  # can be written to: nobody has to copy it
    with gzip.open(io.BytesIO(read(file))) as packed:
        while chunk := packed.read(2**20):
            content += chunk
    return idx_array(content, n_dimensions, file.path, file.dataset)


def idx_array(
    content: bytes | bytearray, n_dimensions: int, source: Path | str, dataset: str
) -> np.ndarray:
    """What an IDX file holds, uint8.

    Args:
        content: of the file, not compressed.
        n_dimensions: that the array has.
        source: where it comes from, for the message.
        dataset: the collection's name, for the message.

    Raises:
        InputError: it is no such file, or not whole.
    """
    start = 4 + 4 * n_dimensions
    magic = bytes([0, 0, _UNSIGNED_BYTE, n_dimensions])
    if len(content) < start or content[:4] != magic:
        reason = (
            f"expected an IDX file that begins with {magic.hex()}, found {bytes(content[:4]).hex()}"
        )
        raise damaged(source, reason, dataset)
    shape = tuple(int(size) for size in np.frombuffer(content[4:start], ">u4"))
    if len(content) != start + math.prod(shape):
        reason = f"expected {start + math.prod(shape):,} bytes, found {len(content):,}"
        raise damaged(source, reason, dataset)
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
