"""What a collection has to offer, and the cache that lets the jobs of a sweep load it once."""

from __future__ import annotations

import hashlib
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Protocol

from fedexp.core.types import Dataset
from fedexp.data.check import checked
from fedexp.data.download import RemoteFile

# Two: a sweep over seeds stays on one dataset, and a comparison of two does not thrash.
MOST_KEPT = 2
_kept: OrderedDict[tuple[bytes, Path], Dataset] = OrderedDict()


class Loader(Protocol):
    """A collection as configured: a dataclass, frozen or not.

    If it has `input_shape` and `num_classes` (as its YAML must, for the model), what it loads is
    compared with them.
    """

    @property
    def name(self) -> str:
        """The collection's name in the config and on the command line."""

    def __call__(self, data_dir: Path) -> Dataset:
        """Load it from `data_dir`, fetching what is missing; raises InputError."""

    def files(self, data_dir: Path) -> tuple[RemoteFile, ...]:
        """The files that it has to download or has downloaded; empty if it needs none."""


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
    )


def _key(loader: Loader, data_dir: Path) -> tuple[bytes, Path] | None:
    """All that decides what is loaded: a loader need not be hashable, and may have been changed.

    None where it cannot be told.
    """
    try:
        return hashlib.sha256(pickle.dumps(loader)).digest(), data_dir
    except Exception:  # whatever a loader's own attributes raise: then nothing is kept
        return None
