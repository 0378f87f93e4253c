"""CIFAR-10 and CIFAR-100: photographs at 32x32, in one archive of pickled NumPy arrays each.

Addresses, checksums and the names of files and classes are torchvision's. A pickle can run code, so
these are read by an unpickler that makes NumPy arrays, text and numbers, and refuses the rest.
Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", University of
Toronto, 2009.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np

from fedexp.core.checks import one_of
from fedexp.core.examples import Dataset, Split
from fedexp.data.assemble import assemble, check_sizes, image_shape, image_split, stratified
from fedexp.data.download import RemoteFile, damaged, intact, present, read_local

SHAPE = (3, 32, 32)
ARRAYS = {
    *(("numpy", name) for name in ("ndarray", "dtype")),
    *((f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")),
    ("_codecs", "encode"),
}
"""All that the pickles of arrays need."""


@final
@dataclass(frozen=True)
class CIFAR:
    """A collection in the files of its "python version"; validation is taken from training.

    Read from the archive in `data_dir` if it is there, else from the files unpacked beside it, as
    torchvision leaves them.

    Args:
        name: the name in the config.
        collection: torchvision's name for it: CIFAR10 or CIFAR100 (its 100 fine classes).
        input_shape: (channels, height, width) of an image.
        num_classes: how many classes there are.
        validation_size: examples taken from the training part, by class.
        split_seed: decides which examples those are; apart from the run's seed.
    """

    name: str
    collection: str
    input_shape: tuple[int, ...]
    num_classes: int
    validation_size: int
    split_seed: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "input_shape", image_shape(self.input_shape))
        one_of(["CIFAR10", "CIFAR100"], collection=self.collection)
        check_sizes(self.split_seed, validation_size=self.validation_size)

    def __call__(self, data_dir: Path) -> Dataset:
        """The dataset; raises InputError if a file is missing or damaged."""
        published = self._published()
        read = self._reader(data_dir)
        meta = published.meta
        names = tuple(map(str, read(meta["filename"], meta["md5"])[meta["key"]]))
        whole, test = (
            self._split([read(filename, md5) for filename, md5 in files], len(names), data_dir)
            for files in (published.train_list, published.test_list)
        )
        train, validation = stratified(whole, self.validation_size, self.split_seed)
        return assemble(
            self.name, train, validation, test, names, self.input_shape, self.num_classes
        )

    def files(self, data_dir: Path) -> tuple[RemoteFile, ...]:
        """The archive; nothing where its files lie there unpacked."""
        archive = self._archive(data_dir)
        return () if self._unpacked(data_dir) else (archive,)

    def _published(self) -> Any:
        """The class with which torchvision describes this collection."""
        from torchvision import datasets

        return getattr(datasets, self.collection)

    def _archive(self, data_dir: Path) -> RemoteFile:
        about = self._published()
        return RemoteFile(data_dir / about.filename, (about.url,), about.tgz_md5, self.name)

    def _unpacked(self, data_dir: Path) -> bool:
        """Whether there is no archive, and all its files are."""
        about = self._published()
        names = [name for name, _ in (*about.train_list, *about.test_list)]
        folder = data_dir / about.base_folder
        return not present(data_dir / about.filename) and all(
            present(folder / name) for name in (*names, about.meta["filename"])
        )

    def _reader(self, data_dir: Path) -> Any:
        """Reads one of the files, of a name and an MD5."""
        folder = data_dir / self._published().base_folder
        if self._unpacked(data_dir):
            return lambda name, md5: _unpickled(
                read_local(folder / name), md5, folder / name, self.name
            )
        archive = intact(self._archive(data_dir))
        members = _members(archive, self._published().base_folder, self.name)

        def read(name: str, md5: str) -> Mapping[str, Any]:
            if name not in members:
                raise damaged(archive, f"expected {name} in it, found none", self.name)
            return _unpickled(members[name], md5, f"{name} in {archive}", self.name)

        return read

    def _split(self, parts: list[Mapping[str, Any]], num_classes: int, data_dir: Path) -> Split:
        source = data_dir / self._published().base_folder
        try:
            x = np.concatenate([np.asarray(part["data"], np.uint8) for part in parts])
            labels = [part.get("labels", part.get("fine_labels")) for part in parts]
            y = np.concatenate([np.asarray(label, np.int64) for label in labels])
            x = x.reshape(-1, *SHAPE)
        except (KeyError, TypeError, ValueError) as error:
            reason = f"expected data [n, {np.prod(SHAPE)}] and labels ({error})"
            raise damaged(source, reason, self.name) from error
        return image_split(x, y, num_classes, source, self.name, divisor=255)


def _members(archive: Path, folder: str, dataset: str) -> dict[str, bytes]:
    """The files of a folder in an archive, by name; nothing is unpacked to the disk."""
    try:
        with tarfile.open(archive) as tar:
            files = [m for m in tar.getmembers() if m.isfile() and m.name.startswith(f"{folder}/")]
            return {Path(m.name).name: _content(tar, m) for m in files}
    except (tarfile.TarError, EOFError, OSError) as error:
        raise damaged(archive, f"expected a tar archive ({error})", dataset) from error


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None  # it is a regular file
    return file.read()


class _Arrays(pickle.Unpickler):
    """Makes NumPy arrays and what pickle makes without any class."""

    def find_class(self, module: str, name: str) -> Any:
        """Called for every class or function that a pickle names."""
        if (module, name) not in ARRAYS:
            raise pickle.UnpicklingError(f"it names {module}.{name}, and only arrays are read")
        return super().find_class(module, name)


def _unpickled(content: bytes, md5: str, source: Path | str, dataset: str) -> Mapping[str, Any]:
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != md5:
        raise damaged(source, f"expected MD5 {md5}, found {found}", dataset)
    try:
        document = _Arrays(io.BytesIO(content), encoding="latin1").load()
    except Exception as error:  # whatever a broken pickle makes its reader raise
        raise damaged(source, f"expected a pickle of arrays ({error})", dataset) from error
    if not isinstance(document, Mapping):
        raise damaged(source, f"expected a mapping, found a {type(document).__name__}", dataset)
    return document
