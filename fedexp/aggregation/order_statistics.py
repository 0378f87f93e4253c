"""Coordinate-wise order statistics of a tall matrix, in column chunks on all cores.

The mean of the sorted values at positions low..high-1 of every column of X `[n, d]`. Two ways to
sort a chunk, and the quicker one for so many rows on this machine is taken:

- A network of compare-exchange operations on whole rows (Batcher, "Sorting networks and their
  applications", AFIPS 1968), each a pair of elementwise `minimum`/`maximum`; comparators that no
  wanted position depends on are left out. Quick for few rows.
- NumPy's sort, or for a median its selection (`partition`), on a copy that lies column by column.

Both find the same numbers, and these are added up in the same order, so which of them was quicker
does not change a bit of the result. Every column is computed by itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from fedexp.core.columns import over_columns

MOST_FOR_A_NETWORK = 128  # rows: beyond, it is slower everywhere, and long to lay out
TRIAL_COLUMNS = 16_384

Sort = Callable[[Tensor, int, int, Iterator[slice]], Iterator[tuple[slice, Tensor]]]
"""Of `[n, d]`, low, high and chunks of columns: each chunk and its sorted rows low..high-1."""


def mean_of_sorted(matrix: Tensor, low: int, high: int) -> Tensor:
    """Mean over the sorted values low..high-1 of each column: `[n, d]` to `[d]`.

    A column that holds a NaN gives NaN.

    >>> mean_of_sorted(torch.tensor([[9.0], [1.0], [2.0], [4.0]]), 1, 3)
    tensor([3.])
    """
    return of_sorted(matrix, low, high, lambda values: added_up(values) / (high - low))


def of_sorted(matrix: Tensor, low: int, high: int, reduce: Callable[[Tensor], Tensor]) -> Tensor:
    """What `reduce` makes of the sorted values low..high-1 of each column: `[n, d]` to `[d]`.

    Args:
        matrix: `[n, d]`.
        low: the first position.
        high: the one after the last.
        reduce: `[high - low, c]`, ascending (a column that holds a NaN: all NaN), to `[c]`; the
            values are its own to write to.
    """
    result = matrix.new_empty(matrix.shape[1])
    sort, numbers = _quickest(len(matrix), low, high, matrix.device.type)

    def work(chunks: Iterator[slice]) -> None:
        for columns, values in sort(matrix, low, high, chunks):
            result[columns] = reduce(values)

    over_columns(work, matrix, numbers)
    return result


def added_up(values: Tensor) -> Tensor:
    """Sum over the rows, one after the other: `[m, c]` to `[c]`; a sum of zeros is +0.

    On the CPU by NumPy: a column's bits do not depend on how many there are beside it.
    """
    if values.device.type != "cpu":
        return values.sum(dim=0)
    with np.errstate(over="ignore", invalid="ignore"):  # infinite rows may have come as far as here
        return torch.from_numpy(np.add.reduce(values.numpy(), axis=0, initial=0))


@lru_cache(maxsize=64)
def _quickest(n: int, low: int, high: int, device: str) -> tuple[Sort, int]:
    """How to sort n rows here, and how many numbers at once; tried where it is not known."""
    if device != "cpu":
        return _by_the_device, 0
    by_numpy, by_network = (_by_numpy, 2**18), (_by_network, 2**21)
    if n > MOST_FOR_A_NETWORK:
        return by_numpy
    trial = torch.arange(n * TRIAL_COLUMNS, dtype=torch.float32).view(n, -1).mul_(1e3).sin_()
    return min(by_numpy, by_network, key=lambda way: _seconds(way[0], trial, low, high))


def _seconds(sort: Sort, trial: Tensor, low: int, high: int) -> float:
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        for _ in sort(trial, low, high, iter([slice(0, TRIAL_COLUMNS)])):
            seconds.append(time.perf_counter() - started)
    return min(seconds)


def _by_numpy(
    matrix: Tensor, low: int, high: int, chunks: Iterator[slice]
) -> Iterator[tuple[slice, Tensor]]:
    rows, last = matrix.numpy(), high - 1
    for columns in chunks:
        values = np.array(rows[:, columns].T, order="C")  # [c, n]
        if high - low <= 2:  # a median
            values.partition(last, axis=1)
            if low < last:
                values[:, low] = values[:, :last].max(axis=1)
            lost = np.isnan(values[:, last:].max(axis=1))
        else:
            values.sort(axis=1)
            lost = np.isnan(values[:, -1])
        wanted = np.array(values[:, low:high].T, order="C")
        wanted[:, lost] = np.nan
        yield columns, torch.from_numpy(wanted)


def _by_network(
    matrix: Tensor, low: int, high: int, chunks: Iterator[slice]
) -> Iterator[tuple[slice, Tensor]]:
    # By NumPy, whose calls cost half of torch's. On several cores long rows are best all the same:
    # between two calls threads wait for the interpreter.
    n, given = len(matrix), matrix.numpy()
    network, buffer = _network(n, low, high), np.empty((n + 1, 0), given.dtype)
    for columns in chunks:
        chunk = given[:, columns]
        if buffer.shape[1] < chunk.shape[1]:  # of the first, which is the widest
            buffer = np.empty((n + 1, chunk.shape[1]), given.dtype)
        *rows, free = buffer[:, : chunk.shape[1]]
        buffer[:n, : chunk.shape[1]] = chunk
        with np.errstate(invalid="ignore"):
            for i, j in network:  # afterwards rows[i] <= rows[j]
                np.minimum(rows[i], rows[j], out=free)  # the spare row saves every allocation
                np.maximum(rows[i], rows[j], out=rows[j])
                rows[i], free = free, rows[i]
        yield columns, torch.from_numpy(np.stack(rows[low:high]))


def _by_the_device(
    matrix: Tensor, low: int, high: int, chunks: Iterator[slice]
) -> Iterator[tuple[slice, Tensor]]:
    for columns in chunks:
        ordered = matrix[:, columns].sort(dim=0).values
        yield columns, torch.where(ordered[-1].isnan(), ordered[-1], ordered[low:high])


@lru_cache(maxsize=64)
def _network(n: int, low: int, high: int) -> tuple[tuple[int, int], ...]:
    """Comparators (i, j), i < j, after which positions low..high-1 hold their order statistics."""
    comparators = _odd_even_merge_sort(n)
    # Comparators that end wholly below `low` or wholly above `high` only permute what is summed
    # or left out; going backwards, keep those that a wanted position depends on.
    needed, kept = set(range(low, high)), []
    for i, j in reversed(comparators):
        if i in needed or j in needed:
            kept.append((i, j))
            needed |= {i, j}
    return tuple(reversed(kept))


def _odd_even_merge_sort(n: int) -> list[tuple[int, int]]:
    """Batcher's odd-even merge sort for any n (Knuth, TAOCP 3, algorithm 5.2.2M)."""
    comparators = []
    p = 1
    while p < n:
        k = p
        while k >= 1:
            for j in range(k % p, n - k, 2 * k):
                for i in range(min(k, n - j - k)):
                    if (i + j) // (2 * p) == (i + j + k) // (2 * p):
                        comparators.append((i + j, i + j + k))
            k //= 2
        p *= 2
    return comparators
