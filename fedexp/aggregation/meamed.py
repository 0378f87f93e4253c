"""The mean around the median: per coordinate the n - f values nearest to the median.

    step_i = mean of the n - f values delta_{k,i} with the smallest |delta_{k,i} - median_i|

Among sorted values those nearest to the median lie side by side, so no distance is ever sorted: a
window starts at the smallest value and moves up for as long as the value it gains is nearer to the
median than the one it loses.

Source: Xie, Koyejo and Gupta, "Generalized Byzantine-tolerant SGD", arXiv:1802.10116, 2018 (mean
around median). For even n the median is the mean of the two middle values; of two values equally
far from it the smaller one is kept. Breakdown point: f attackers, 2f < n.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from fedexp.aggregation.order_statistics import added_up, of_sorted
from fedexp.core.checks import at_least, refuse_majority
from fedexp.core.stateless import Stateless
from fedexp.core.types import State, Updates


@final
@dataclass(frozen=True)
class MeanAroundMedian(Stateless):
    """Mean of the n - f values nearest to the median, per coordinate: `[n, d]` to `[d]`.

    Args:
        assumed_malicious: f, how many of the clients that answer may lie; with 0 it is the
            unweighted mean.
    """

    assumed_malicious: int

    def __post_init__(self) -> None:
        at_least(0, assumed_malicious=self.assumed_malicious)

    def __call__(
        self, updates: Updates, state: State, rng: np.random.Generator
    ) -> tuple[Tensor, State]:
        """The step `[d]`; raises InputError where half or more of the clients may lie."""
        n, f = len(updates), self.assumed_malicious
        refuse_majority(n, f)
        return mean_around_median(updates.matrix, torch.arange(n), n - f), state


def mean_around_median(matrix: Tensor, rows: Tensor, count: int) -> Tensor:
    """Mean of the `count` values nearest to the median of some rows: `[n, d]` to `[d]`.

    Args:
        matrix: `[n, d]`.
        rows: `[k]` int64, the rows to look at, all of them or few enough to copy.
        count: how many of the k values of a column to average, at least 1.

    >>> mean_around_median(torch.tensor([[0.0], [1.0], [2.0], [9.0]]), torch.arange(4), 3)
    tensor([1.])
    """
    k = len(rows)
    chosen = matrix if k == len(matrix) else matrix[rows.to(matrix.device)]
    return of_sorted(chosen, 0, k, lambda values: _mean_near_median(values, count))


def _mean_near_median(ordered: Tensor, count: int) -> Tensor:
    """Mean of the `count` values nearest to the median of sorted columns: `[k, c]` to `[c]`."""
    k = len(ordered)
    median = (ordered[(k - 1) // 2] + ordered[k // 2]) / 2
    gained, lost = ordered[count:], ordered[: k - count]
    first = (gained - median < median - lost).sum(dim=0)  # how often the window moves up
    place = torch.arange(k, device=ordered.device)[:, None]
    # Nothing is added and taken off again: an outlier of 1e30 that is left out leaves no rounding.
    outside = (place < first) | (place >= first + count)
    return added_up(ordered.masked_fill_(outside, 0)) / count
