"""What a collection has to offer, and the cache that lets the jobs of a sweep load it once."""

from __future__ import annotations

import hashlib
import pickle
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, final, runtime_checkable

from fedexp.core.examples import Dataset
from fedexp.data.check import checked
from fedexp.data.download import RemoteFile

# Two: a sweep over seeds stays on one dataset, and a comparison of two does not thrash.
MOST_KEPT = 2
_kept: OrderedDict[tuple[bytes, Path], Dataset] = OrderedDict()


class Loader(Protocol):
    """A collection as configured: a dataclass, frozen or not.

    If it has `input_shape` and `num_classes` (as its YAML must, for the model), what it loads is
    compared with them. With a `validation_size` of 0 its validation part may be empty.
    """

    @property
    def name(self) -> str:
        """The collection's name in the config and on the command line."""

    def __call__(self, data_dir: Path) -> Dataset:
        """Load it from `data_dir`, fetching what is missing; raises InputError."""

    def files(self, data_dir: Path) -> tuple[RemoteFile, ...]:
        """The files that it has to download or has downloaded; empty if it needs none."""


@final
@dataclass(frozen=True)
class Facts:
    """What a config may leave to the data to say."""

    input_shape: tuple[int, ...]  # of one example: (channels, height, width) or (features,)
    num_classes: int
    n_sites: int  # where examples were taken; 0: not known

    @classmethod
    def of(cls, dataset: Dataset) -> Facts:
        """Those of a dataset that is loaded."""
        sites = [part.site for part in dataset.parts.values() if part.site is not None]
        n_sites = len(dataset.site_names) or max((int(s.max()) + 1 for s in sites), default=0)
        return cls(dataset.input_shape, dataset.num_classes, n_sites)


@runtime_checkable
class DescribesItself(Protocol):
    """A loader that knows its facts without loading anything large."""

    def facts(self, data_dir: Path) -> Facts:
        """What is in the data; raises InputError as loading them would."""


def facts_of(loader: Loader, data_dir: Path) -> Facts:
    """What `loader` says about its data, or what they say themselves once they are loaded.

    Raises:
        InputError: they cannot be loaded.
    """
    if isinstance(loader, DescribesItself):
        return loader.facts(data_dir)
    return Facts.of(load(loader, data_dir))


def load(loader: Loader, data_dir: Path) -> Dataset:
    """What `load_anew` gives, kept for the next call in this process with an equal loader.

    Everybody gets the same tensors: whoever wants to change them must copy them.

    Raises:
        InputError: as `load_anew`.
    """
    key = _key(loader, data_dir)
    if key is None:
        return load_anew(loader, data_dir)
    if key not in _kept:
        while len(_kept) >= MOST_KEPT:  # first, so that three are never there at once
            _kept.popitem(last=False)
        _kept[key] = load_anew(loader, data_dir)
    _kept.move_to_end(key)
    return _kept[key]


def forget() -> None:
    """Have everything loaded anew: files may have changed since."""
    _kept.clear()


def load_anew(loader: Loader, data_dir: Path) -> Dataset:
    """What `loader(data_dir)` gives, checked.

    Raises:
        InputError: it cannot be loaded, or not be used.
    """
    return checked(
        loader(data_dir),
        loader.name,
        getattr(loader, "input_shape", None),
        getattr(loader, "num_classes", None),
        ("validation",) if getattr(loader, "validation_size", None) == 0 else (),
    )


def _key(loader: Loader, data_dir: Path) -> tuple[bytes, Path] | None:
    """All that decides what is loaded: a loader need not be hashable, and may have been changed.

    None where it cannot be told.
    """
    try:
        return hashlib.sha256(pickle.dumps(loader)).digest(), data_dir
    except Exception:  # whatever a loader's own attributes raise: then nothing is kept
        return None
