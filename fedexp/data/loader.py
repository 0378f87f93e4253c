"""What a collection has to offer, and the cache that lets the jobs of a sweep load it once."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Protocol

from fedexp.core.types import Dataset
from fedexp.data.download import RemoteFile


class Loader(Protocol):
    """A collection as configured: a frozen dataclass, so two equal ones are one cache entry."""

    @property
    def name(self) -> str:
        """The collection's name in the config and on the command line."""

    def __call__(self, data_dir: Path) -> Dataset:
        """Load it from `data_dir`, fetching what is missing; raises InputError."""

    def files(self, data_dir: Path) -> tuple[RemoteFile, ...]:
        """The files that it has to download or has downloaded; empty if it needs none."""


# Two: a sweep over seeds stays on one dataset, and a comparison of two does not thrash; the largest
# of them takes a gigabyte, so older ones must go.
@lru_cache(maxsize=2)
def load(loader: Loader, data_dir: Path) -> Dataset:
    """What `loader(data_dir)` gives, kept for the next call in this process.

    Everybody gets the same tensors: whoever wants to change them must copy them.
    """
    return loader(data_dir)
