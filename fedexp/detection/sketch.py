"""Count sketch: long rows made short, with inner products kept on average.

    (S x)_b = sum of s(i) x_i over the columns i with h(i) = b

h sends every column to one of `size` buckets, s gives it a random sign. With independent signs
E<S x, S y> = <x, y>, and the error of an inner product is about |x| |y| / sqrt(size), however long
the rows are. It is linear: the sketch of an average is the average of the sketches.

Sources: Charikar, Chen and Farach-Colton, "Finding Frequent Items in Data Streams", ICALP 2002,
section 3; Weinberger et al., "Feature Hashing for Large Scale Multitask Learning", ICML 2009,
section 2. There h is drawn column by column; here one random permutation of a block of columns,
dealt out evenly and used for every block, so that no bucket is fuller than another. The
expectation needs only the signs to be independent, and those are drawn for every column.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fedexp.core.rng import seed_for, torch_generator

BLOCK_COLUMNS = 65_536
"""Columns that are permuted together. Part of the definition: another number, another sketch."""

BLOCK_ROWS = 64


def count_sketch(matrix: Tensor, size: int, seed: int) -> Tensor:
    """The sketch of every row: `[n, d]` to `[n, size]` float64, the same for (seed, d, size).

    Time O(n d); no temporary is larger than a block, whatever d is.

    >>> rows = torch.randn(2, 50_000, generator=torch_generator(0))
    >>> a, b = count_sketch(rows, 512, seed=1)
    >>> bool((a @ b - rows[0] @ rows[1]).abs() < 3 * 50_000 / 512**0.5)
    True
    """
    n, d = matrix.shape
    sketch = torch.zeros(n, size, dtype=torch.float64, device=matrix.device)
    for start, order, signs in _blocks(d, size, seed, matrix.device):
        block = matrix[:, start : start + len(signs)]
        for rows, total in zip(block.split(BLOCK_ROWS), sketch.split(BLOCK_ROWS), strict=True):
            signed = rows * signs
            missing = len(order) - len(signs)  # in the last block, and counted as 0
            if missing:
                signed = torch.nn.functional.pad(signed, (0, missing))
            total += signed[:, order].view(len(rows), len(order) // size, size).sum(dim=1)
    return sketch


def _blocks(
    d: int, size: int, seed: int, device: torch.device
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """(first column, permutation of a block, a sign for each of its columns), in order."""
    draw = torch_generator(seed_for(seed, "sketch", d, size))
    columns = size * max(1, min(d, BLOCK_COLUMNS) // size)
    order = torch.randperm(columns, generator=draw).to(device)
    for start in range(0, d, columns):
        length = min(columns, d - start)
        signs = torch.randint(0, 2, (length,), generator=draw, dtype=torch.int8)
        yield start, order, (signs * 2 - 1).float().to(device)
