"""Files mapped into memory: read page by page when they are looked at, and let go again.

A mapped page that was looked at counts as this process's memory until the system wants it back.
`let_go` gives it back at once; who looks again reads it again, from the system's cache as a rule.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

_GATHERED = 2**22  # bytes of rows that are gathered at once; each brings its neighbours along
_MAPPED: dict[int, tuple[int, str]] = {}
"""Address -> bytes and file of every mapping made here. One is never unmapped while it is known:
the storage lives as long as the process's dataset, and a new one at its address replaces it."""


def map_bytes(path: Path, shape: tuple[int, ...]) -> Tensor:
    """The bytes of a file as a tensor `shape` uint8, which nobody may write to.

    The mapping is private: a write would change this process's copy only, and be lost when the
    page is let go.
    """
    n = math.prod(shape)
    mapped = torch.from_file(str(path), shared=False, size=n, dtype=torch.uint8)
    _MAPPED[mapped.data_ptr()] = (n, str(path))
    return mapped.view(shape)


def file_of(tensor: Tensor) -> str | None:
    """The file that `map_bytes` mapped a tensor from; None where it did not."""
    if tensor.device.type != "cpu":
        return None
    storage = tensor.untyped_storage()
    n, path = _MAPPED.get(storage.data_ptr(), (-1, None))
    return path if storage.nbytes() == n and storage.is_shared() else None


@final
@dataclass(frozen=True)
class Reference:
    """Where a tensor that `map_bytes` mapped lies, for another process to map it too."""

    file: str
    n: int  # bytes of the file
    start: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @classmethod
    def to(cls, tensor: Tensor) -> Reference | None:
        """That of a tensor, or of a view of one; None where it lies in no such file."""
        if (file := file_of(tensor)) is None:
            return None
        n = tensor.untyped_storage().nbytes()
        return cls(file, n, int(tensor.storage_offset()), tuple(tensor.shape), tensor.stride())

    def mapped(self) -> Tensor:
        """The tensor, mapped by this process."""
        whole = map_bytes(Path(self.file), (self.n,))
        return whole.as_strided(self.shape, self.stride, self.start)


def let_go(tensor: Tensor) -> None:
    """Give back the pages of a tensor that `map_bytes` mapped; of any other, nothing happens."""
    if tensor.numel() == 0 or file_of(tensor) is None or _advise() is None:
        return
    start = tensor.data_ptr()
    first, last = start, start + tensor.numel() * tensor.element_size()
    page = mmap.PAGESIZE
    first, last = -(-first // page) * page, last // page * page  # whole pages only
    if last > first:
        _advise()(ctypes.c_void_p(first), ctypes.c_size_t(last - first), mmap.MADV_DONTNEED)


def gathered(tensor: Tensor, chosen: Tensor) -> Tensor:
    """`tensor[chosen]`, a copy; of what `map_bytes` mapped, few pages are in memory at a time."""
    if file_of(tensor) is None:
        return tensor[chosen]
    rows = chosen.nonzero().flatten() if chosen.dtype == torch.bool else chosen
    copied = tensor.new_empty(len(rows), *tensor.shape[1:])
    at_once = max(1, _GATHERED // max(1, tensor[:1].nbytes))
    for start in range(0, len(rows), at_once):
        torch.index_select(
            tensor, 0, rows[start : start + at_once], out=copied[start : start + at_once]
        )
        let_go(tensor)
    return copied


@cache
def _advise() -> Any:
    """The system's `madvise`; None where it has none that drops pages at once."""
    if sys.platform != "linux":
        return None
    return getattr(ctypes.CDLL(None), "madvise", None)
