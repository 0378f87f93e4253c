"""The geometric median: the point with the least sum of distances to the rows.

    step = argmin_z sum_k w_k ||delta_k - z||

by smoothed Weiszfeld iterations: a_k <- w_k / max(nu, ||delta_k - z||), z <- sum_k a_k delta_k /
sum_k a_k, from the weighted mean. The iterations run on the n x n Gram matrix; the rows are read
once before and once after.

Source: Pillutla, Kakade and Harchaoui, "Robust Aggregation for Federated Learning" (RFA), IEEE
Transactions on Signal Processing 70, 2022, algorithm 2. Breakdown point: fewer than half of the
weight.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

import numpy as np
import torch
from torch import Tensor

from fedexp.core.checks import at_least, one_of, positive, refuse_majority
from fedexp.core.geometry import centred_gram, distances_to_point
from fedexp.core.stateless import Stateless
from fedexp.core.types import State, Updates


@final
@dataclass(frozen=True)
class GeometricMedian(Stateless):
    """Smoothed Weiszfeld: `[n, d]` to `[d]`.

    Args:
        assumed_malicious: how many of the clients that answer may lie; the rule does not use the
            number, but refuses where it could not hold (2f >= n).
        weighting: "examples" weights a client by its examples, as RFA does; "uniform" does not.
        iterations: Weiszfeld steps; RFA finds 3 to be enough.
        smoothing: nu, the least distance that counts, in the units of an update's norm.
    """

    assumed_malicious: int
    weighting: Literal["examples", "uniform"]
    iterations: int
    smoothing: float

    def __post_init__(self) -> None:
        one_of(("examples", "uniform"), weighting=self.weighting)
        at_least(1, iterations=self.iterations)
        positive(smoothing=self.smoothing)

    def __call__(
        self, updates: Updates, state: State, rng: np.random.Generator
    ) -> tuple[Tensor, State]:
        """The step `[d]`."""
        refuse_majority(len(updates), self.assumed_malicious)
        weights = updates.num_examples.to(updates.matrix.device)
        if self.weighting == "uniform":
            weights = torch.ones_like(weights)
        share = weiszfeld_weights(
            centred_gram(updates.matrix), weights, self.iterations, self.smoothing
        )
        return share.to(updates.matrix) @ updates.matrix, state


def weiszfeld_weights(gram: Tensor, weights: Tensor, iterations: int, smoothing: float) -> Tensor:
    """What share of each row the geometric median is made of: `[n]` float64, sums to 1.

    Args:
        gram: `[n, n]` float64, see `fedexp.core.geometry.centred_gram`.
        weights: `[n]`, any scale.
        iterations: Weiszfeld steps.
        smoothing: the least distance that counts.
    """
    share = weights / weights.sum()
    for _ in range(iterations):
        share = weights / distances_to_point(gram, share).clamp_min(smoothing)
        share = share / share.sum()
    return share
