"""Shards that are computed whenever they are asked for, and what is asked of any shards at once.

A tuple of arrays is what most partitions make of a federation. Of a million clients it would be a
quarter of a gigabyte, and a list of them many megabytes in every record; a partition that can say
who holds what without a list has a sequence that computes it. Such shards are not listed anywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

AT_ONCE = 2**16  # clients whose rows are in memory together


@runtime_checkable
class Computed(Protocol):
    """A sequence of shards `[n_clients]` that is not stored."""

    def sizes(self) -> np.ndarray:
        """How many rows each has: `[n_clients]` int64."""

    def between(self, first: int, last: int) -> np.ndarray:
        """The rows of clients first..last-1, client by client and in ascending order: int64."""


def are_listed(shards: Sequence[np.ndarray]) -> bool:
    """Whether there are so few that they may be gone through, and written down, one by one."""
    return not isinstance(shards, Computed)


def sizes_of(shards: Sequence[np.ndarray]) -> np.ndarray:
    """How many rows each client has: `[n_clients]` int64."""
    if isinstance(shards, Computed):
        return shards.sizes()
    return np.array([len(shard) for shard in shards], dtype=np.int64)


def blocks(shards: Sequence[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(sizes of a number of clients in a row, their rows client by client and in ascending order).

    >>> [(s.tolist(), r.tolist()) for s, r in blocks([np.array([0, 4]), np.array([2])])]
    [([2, 1], [0, 4, 2])]
    """
    sizes = sizes_of(shards)
    for first in range(0, len(shards), AT_ONCE):
        last = min(first + AT_ONCE, len(shards))
        if isinstance(shards, Computed):
            yield sizes[first:last], shards.between(first, last)
        else:
            yield sizes[first:last], np.concatenate([np.sort(s) for s in shards[first:last]])


def all_rows(shards: Sequence[np.ndarray]) -> np.ndarray:
    """What all clients hold together, client by client."""
    return np.concatenate([rows for _, rows in blocks(shards)])


def partition_hash(shards: Sequence[np.ndarray]) -> str:
    """SHA-256, in hex, of who holds which rows.

    The bytes that are hashed: for each client in order, the length of its shard and then its
    indices in ascending order, each number a little-endian signed 64-bit integer. In plain Python:

    >>> import struct
    >>> indices = [[0, 2], [1]]
    >>> bytes_ = b"".join(struct.pack(f"<{len(i) + 1}q", len(i), *i) for i in indices)
    >>> partition_hash([np.array(i) for i in indices]) == hashlib.sha256(bytes_).hexdigest()
    True
    """
    digest = hashlib.sha256()
    for sizes, rows in blocks(shards):
        starts = np.cumsum(sizes) - sizes
        digest.update(np.insert(rows, starts, sizes).astype("<i8", copy=False).tobytes())
    return digest.hexdigest()
