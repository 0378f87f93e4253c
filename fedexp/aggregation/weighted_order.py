"""Coordinate-wise order statistics of rows that weigh differently, by chunks on all cores.

Sorted with their shares, the values of a column divide [0, 1] into intervals as long as the shares.
A median is what lies at 1/2, a trimmed mean what lies between beta and 1 - beta.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from fedexp.core.columns import over_columns
from fedexp.core.shares import ROUNDING

Reduce = Callable[[Tensor, Tensor], Tensor]
"""Sorted values `[c, n]` and what share of the weight each has `[c, n]` float64, to `[c]`."""

SIGN = np.int32(2**31 - 1)  # turns a negative number's bits round, but for the sign


def of_sorted_with_shares(matrix: Tensor, shares: Tensor, reduce: Reduce) -> Tensor:
    """What `reduce` makes of the sorted values of each column: `[n, d]` to `[d]`.

    A column that holds a NaN gives NaN: it sorts to the end, where the weight of honest values
    could hide it.
    """
    result = matrix.new_empty(matrix.shape[1])
    shares = shares.to(matrix.device)
    ours = matrix.device.type == "cpu" and matrix.dtype == torch.float32
    sort = _sorted if ours else _sorted_by_torch

    def work(chunks: Iterator[slice]) -> None:
        for columns in chunks:
            values, order = sort(matrix[:, columns])
            found = reduce(values, shares[order]).to(values.dtype)
            lost = values[:, 0].isnan() | values[:, -1].isnan()  # a negative NaN comes first
            result[columns] = found.masked_fill_(lost, torch.nan)

    over_columns(work, matrix)
    return result


def _sorted(chunk: Tensor) -> tuple[Tensor, Tensor]:
    """The values of each column, ascending, and whose they are: `[n, c]` float32 to two `[c, n]`.

    Sorted are whole numbers whose upper half has the order of the value and whose lower half is the
    row: NumPy sorts those several times faster than it finds the order of floats, and rows of one
    value stay in their order.
    """
    bits = np.array(chunk.numpy().T, order="C").view(np.int32)
    keys = (bits ^ (bits >> 31 & SIGN)).astype(np.int64) << 32
    keys |= np.arange(len(chunk))
    keys.sort(axis=1)
    ordered = (keys >> 32).astype(np.int32)
    values = (ordered ^ (ordered >> 31 & SIGN)).view(np.float32)
    return torch.from_numpy(values), torch.from_numpy(keys & 0xFFFFFFFF)


def _sorted_by_torch(chunk: Tensor) -> tuple[Tensor, Tensor]:
    values, order = chunk.T.sort(dim=1, stable=True)
    return values, order


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
    present = shares > 0
    rows, shares = (matrix, shares) if bool(present.all()) else (matrix[present], shares[present])

    def middle(values: Tensor, of_value: Tensor) -> Tensor:
        reached = of_value.cumsum(dim=1)
        low = (reached < 0.5 - ROUNDING).sum(dim=1, keepdim=True)
        high = (reached <= 0.5 + ROUNDING).sum(dim=1, keepdim=True)
        return (values.gather(1, low) + values.gather(1, high))[:, 0] / 2

    return of_sorted_with_shares(rows, shares, middle)


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

    def inner(values: Tensor, of_value: Tensor) -> Tensor:
        reached = of_value.cumsum(dim=1)
        inside = reached.clamp(trimmed, 1 - trimmed)
        kept = inside - (reached - of_value).clamp(trimmed, 1 - trimmed)
        # Neither a rest of rounding nor 0 times infinity: a row that is trimmed has no say.
        kept = kept.masked_fill(kept <= ROUNDING, 0)
        kept /= kept.sum(dim=1, keepdim=True)
        return (values * kept).masked_fill(kept == 0, 0).sum(dim=1)

    return of_sorted_with_shares(matrix, shares, inner)
