"""Work on a matrix `[n, d]` by its columns: chunks that fit the processor's cache, on all cores.

The columns are cut into bands, at borders that the shape alone decides; a band is one thread's,
which goes through its chunks in order, and what the bands found is handed back in the order of the
columns. So the bits are the same on any number of cores. NumPy and torch release the interpreter
while they compute, and the workers that train sleep while the server aggregates.

A process that is itself a worker (of a sweep, of a pool) stays on its one core. On a GPU the matrix
is one band: the device has its own way of being many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TypeVar

from torch import Tensor

from fedexp.core.cores import cores_to_spare

BANDS = 16  # evens out cores of different speed; what each of them adds up stays small
WORTH_A_THREAD = 2**19  # numbers: below, to start threads takes longer than the work
ON_A_GPU = 2**26  # numbers in a chunk there

Answer = TypeVar("Answer")


def over_columns(
    work: Callable[[Iterator[slice]], Answer], matrix: Tensor, numbers: int = 2**18
) -> list[Answer]:
    """What `work` makes of each band of the columns of `[n, d]`, in their order.

    Args:
        work: is handed a band as slices of columns, the chunks, from left to right; called in
            several threads at once, so what it writes to is its own columns.
        matrix: `[n, d]`.
        numbers: in a chunk, about.

    >>> import torch
    >>> rows = torch.arange(6.0).view(2, 3)
    >>> over_columns(lambda chunks: [rows[:, columns].sum() for columns in chunks], rows)
    [[tensor(15.)]]
    """
    n, d = matrix.shape
    cpu = matrix.device.type == "cpu"
    width = max(1, (numbers if cpu else ON_A_GPU) // max(n, 1))
    chunks = max(1, -(-d // width))
    bands = min(BANDS, chunks) if cpu else 1
    # A band is a whole number of chunks, so that only the last chunk of all is narrower.
    borders = [width * (chunks * band // bands) for band in range(bands)] + [d]
    spans = list(pairwise(borders))

    def one(span: tuple[int, int]) -> Answer:
        start, stop = span
        return work(slice(at, min(at + width, stop)) for at in range(start, stop, width))

    threads = min(cores_to_spare(), bands)
    if threads == 1 or n * d < WORTH_A_THREAD:
        return [one(span) for span in spans]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(one, spans))


def added_over_columns(
    work: Callable[[slice], Tensor], matrix: Tensor, numbers: int = 2**18
) -> Tensor:
    """The sum over chunks of columns of what `work` makes of each, always in the same order.

    >>> import torch
    >>> rows = torch.arange(6.0).view(2, 3)
    >>> added_over_columns(lambda columns: rows[:, columns].sum(dim=1), rows)
    tensor([ 3., 12.])
    """

    def band(chunks: Iterator[slice]) -> Tensor:
        total = work(next(chunks))
        for columns in chunks:
            total += work(columns)
        return total

    first, *others = over_columns(band, matrix, numbers)
    for other in others:
        first += other
    return first
