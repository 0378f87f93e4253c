"""Coordinate-wise order statistics of rows that weigh differently, in column chunks.

Sorted with their shares, the values of a column divide [0, 1] into intervals as long as the shares.
A median is what lies at 1/2, a trimmed mean what lies between beta and 1 - beta.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fedexp.core.shares import ROUNDING

CHUNK_COLUMNS = 16_384


def sorted_with_shares(matrix: Tensor, shares: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Columns, their values in ascending order `[n, c]` and each value's share `[n, c]` float64."""
    for start in range(0, matrix.shape[1], CHUNK_COLUMNS):
        columns = slice(start, start + CHUNK_COLUMNS)
        values, order = matrix[:, columns].sort(dim=0)
        yield columns, values, shares.to(matrix.device)[order]


def weighted_median(matrix: Tensor, shares: Tensor) -> Tensor:
    """The value at 1/2 of the weight in every column: `[n, d]` to `[d]`.

    Where exactly half of the weight lies at or below one value, the mean of that and the next, as
    the plain median has it for even n. A column that holds a NaN gives NaN.

    Args:
        matrix: `[n, d]`.
        shares: `[n]` float64, sum 1; a row without weight has no say.

    >>> rows = torch.tensor([[1.0], [2.0], [9.0]])
    >>> weighted_median(rows, torch.tensor([0.2, 0.2, 0.6], dtype=torch.float64))
    tensor([9.])
    >>> weighted_median(rows, torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64))
    tensor([5.5000])
    """
    result = matrix.new_empty(matrix.shape[1])
    present = shares > 0
    rows, shares = (matrix, shares) if bool(present.all()) else (matrix[present], shares[present])
    for columns, values, of_value in sorted_with_shares(rows, shares):
        reached = of_value.cumsum(dim=0)
        low = (reached < 0.5 - ROUNDING).sum(dim=0, keepdim=True)
        high = (reached <= 0.5 + ROUNDING).sum(dim=0, keepdim=True)
        middle = (values.gather(0, low) + values.gather(0, high))[0] / 2
        # NaN sorts to the end, where the weight of honest values could hide it.
        result[columns] = torch.where(values[-1].isnan(), values[-1], middle)
    return result


def weighted_trimmed_mean(matrix: Tensor, shares: Tensor, trimmed: float) -> Tensor:
    """The mean of what lies between `trimmed` and 1 - `trimmed` of the weight: `[n, d]` to `[d]`.

    A row on the border counts in part. A column that holds a NaN gives NaN.

    Args:
        matrix: `[n, d]`.
        shares: `[n]` float64, sum 1.
        trimmed: of the weight on each side, below 1/2.

    >>> rows = torch.tensor([[0.0], [4.0], [9.0]])
    >>> weighted_trimmed_mean(rows, torch.tensor([0.25, 0.25, 0.5], dtype=torch.float64), 0.25)
    tensor([6.5000])
    """
    result = matrix.new_empty(matrix.shape[1])
    for columns, values, of_value in sorted_with_shares(matrix, shares):
        reached = of_value.cumsum(dim=0)
        inside = reached.clamp(trimmed, 1 - trimmed)
        kept = inside - (reached - of_value).clamp(trimmed, 1 - trimmed)
        # Neither a rest of rounding nor 0 times infinity: a row that is trimmed has no say.
        kept = kept.masked_fill(kept <= ROUNDING, 0)
        kept /= kept.sum(dim=0)
        step = (values * kept).masked_fill(kept == 0, 0).sum(dim=0).to(values.dtype)
        result[columns] = torch.where(values[-1].isnan(), values[-1], step)
    return result
