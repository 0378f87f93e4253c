"""Bulyan: choose rows by Krum, one at a time, then average per coordinate around their median.

    1. n - 2f times: move the row with the lowest Krum score from the rows left to the chosen ones
    2. step_i = mean of the n - 4f chosen values delta_{k,i} nearest to their median

With m rows left a Krum score is the sum of the squared distances to the m - f - 2 nearest of them.

Source: El Mhamdi, Guerraoui and Rouault, "The Hidden Vulnerability of Distributed Learning in
Byzantium", ICML 2018, section 4. Near the end that number falls to one neighbour, where the nearest
two rows always have the same score, and for f = 1 to none, where all have: there is always at least
one neighbour here, and of equal scores the one whose next neighbour is nearer is lower. Breakdown
point: f attackers, n >= 4f + 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from fedexp.aggregation.meamed import mean_around_median
from fedexp.core.checks import InputError, at_least
from fedexp.core.geometry import squared_distances
from fedexp.core.stateless import Stateless
from fedexp.core.types import State, Updates


@final
@dataclass(frozen=True)
class Bulyan(Stateless):
    """Iterated Krum, then the mean around the median: `[n, d]` to `[d]`.

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
        """The step `[d]`; rows that are alike in all respects: the client that comes first.

        Raises:
            InputError: fewer than 4f + 3 clients answered.
        """
        n, f = len(updates), self.assumed_malicious
        if n < 4 * f + 3:
            raise InputError(
                f"needs at least 4 x {f} + 3 clients, but {n} answered this round",
                "assumed_malicious",
                f,
            )
        chosen = iterated_krum(squared_distances(updates.matrix), f) if f else torch.arange(n)
        return mean_around_median(updates.matrix, chosen, n - 4 * f), state


def iterated_krum(squared: Tensor, f: int) -> Tensor:
    """The rows that Krum chooses when it is applied n - 2f times: `[n - 2f]` int64, in that order.

    Args:
        squared: `[n, n]` squared distances between the rows, diagonal 0.
        f: how many rows may lie, at least 1.
    """
    squared = (squared + squared.T) / 2  # alike to the last bit, or rounding would break ties
    nearest, who = squared.sort(dim=1)  # a row's own 0 comes first, or shares the place
    left = torch.arange(len(squared), device=squared.device)
    chosen = []
    for m in range(len(squared), 2 * f, -1):
        neighbours = max(m - f - 2, 1)
        scores = nearest[:, : neighbours + 1].sum(dim=1)
        lowest = (scores == scores.min()).nonzero().flatten()
        best = left[lowest[nearest[lowest, neighbours + 1].argmin()]]
        chosen.append(best)
        others = left != best
        kept = (who != best)[others]
        nearest = nearest[others][kept].view(m - 1, m - 1)
        who = who[others][kept].view(m - 1, m - 1)
        left = left[others]
    return torch.stack(chosen)
