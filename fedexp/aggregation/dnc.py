"""Divide and Conquer (DnC): drop the rows that stick out along the direction of most variance.

    X = the rows at a random subset of coordinates, minus their mean
    s_k = <x_k, v>^2,   v = the top right singular vector of X

Every iteration draws a new subset and drops the c f rows with the highest s_k; the step is the
mean of the rows that no iteration dropped. With lambda the largest eigenvalue of X X' and u its
eigenvector, s_k = lambda u_k^2, so that `[n, n]` is all that is decomposed.

Source: Shejwalkar and Houmansadr, "Manipulating the Byzantine: Optimizing Model Poisoning Attacks
and Defenses for Federated Learning", NDSS 2021, algorithm 2. Where the iterations together drop
every row, which the paper leaves open, the step is zero: the model stays. Breakdown point: f
attackers, 2f < n.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from fedexp.core.checks import InputError, at_least, positive, refuse_majority
from fedexp.core.geometry import refuse_uncountable
from fedexp.core.norms import gram, weighted_sum
from fedexp.core.spectrum import top_eigenpair
from fedexp.core.stateless import Stateless
from fedexp.core.types import State, Updates


@final
@dataclass(frozen=True)
class DnC(Stateless):
    """The mean of the rows that no iteration dropped: `[n, d]` to `[d]`.

    Args:
        assumed_malicious: f, how many of the clients that answer may lie.
        iterations: niters, how many subsets of coordinates are looked at.
        subsample: b, coordinates in a subset; all d where there are fewer.
        filter_fraction: c, rows dropped an iteration as a multiple of f; rounded up to whole rows.
    """

    assumed_malicious: int
    iterations: int
    subsample: int
    filter_fraction: float

    def __post_init__(self) -> None:
        at_least(0, assumed_malicious=self.assumed_malicious)
        at_least(1, iterations=self.iterations, subsample=self.subsample)
        positive(filter_fraction=self.filter_fraction)

    def __call__(
        self, updates: Updates, state: State, rng: np.random.Generator
    ) -> tuple[Tensor, State]:
        """The step `[d]`; of rows with equal scores the one that comes first is kept."""
        matrix = updates.matrix
        n, d = matrix.shape
        refuse_majority(n, self.assumed_malicious)
        # Less a rounding error of the product: 0.1 x 30 is 3 rows, not 4.
        dropped = math.ceil(self.filter_fraction * self.assumed_malicious - 1e-9)
        if dropped >= n:
            raise InputError(
                f"would drop {dropped} of the {n} rows in every iteration",
                "filter_fraction",
                self.filter_fraction,
            )
        kept = torch.ones(n, dtype=torch.bool, device=matrix.device)
        for _ in range(self.iterations):
            drawn = np.sort(rng.choice(d, min(self.subsample, d), replace=False, shuffle=False))
            columns = torch.from_numpy(drawn).to(matrix.device)
            # In float64: what an adversary sends may be large enough for its squares to overflow.
            scores = outlier_scores(matrix.index_select(1, columns).double())
            kept[scores.argsort(stable=True)[n - dropped :]] = False
        share = kept.to(matrix.dtype) / kept.sum().clamp_min(1)
        return weighted_sum(share, matrix), state


def outlier_scores(rows: Tensor) -> Tensor:
    """Squared projections of the centred rows on their top right singular vector: `[n]` float64."""
    centred = rows - rows.mean(dim=0)
    products = gram(centred)
    refuse_uncountable(products)
    value, vector = top_eigenpair(products)
    return value * vector.square()
