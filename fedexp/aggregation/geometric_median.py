"""The geometric median: the point with the least sum of distances to the rows.

    step = argmin_z sum_k w_k ||delta_k - z||

by smoothed Weiszfeld iterations: a_k <- w_k / max(nu, ||delta_k - z||), z <- sum_k a_k delta_k /
sum_k a_k, from the weighted mean. The iterations run on the n x n Gram matrix; the rows are read
once before and once after.

Started from zero, as byzfl does, the first distances are the rows' own lengths and all else is the
same. The paper stops after 3 of them, which from a mean that attackers dragged far away is nowhere
near the median. Ours go on until the sum F of distances is known to be within `tolerance` of the
least: F is convex and z is no further from the best point than 2 F(z) / W (W: the weights' sum),
so that

    F(z) - F* <= ||grad F(z)|| 2 F(z) / W,     grad F(z) = (z - z_next) sum_k w_k / ||delta_k - z||

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

from fedexp.core.checks import at_least, in_range, one_of, positive, refuse_majority
from fedexp.core.geometry import centred_gram, distances_to_point, refuse_uncountable
from fedexp.core.norms import row_norms, weighted_sum
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
        max_iterations: Weiszfeld steps at most; as many as that with a tolerance of 0 (RFA: 3).
        tolerance: how far the sum of distances may be above the least, as a share of it.
        smoothing: nu, the least distance that counts, in the units of an update's norm.
        start: "mean" (RFA: the weighted one) or "zero" (byzfl, with 3 steps and a nu of 0.1).
    """

    assumed_malicious: int
    weighting: Literal["examples", "uniform"]
    max_iterations: int
    tolerance: float
    smoothing: float
    start: Literal["mean", "zero"] = "mean"  # as in runs of the time before there was such a key

    def __post_init__(self) -> None:
        one_of(("examples", "uniform"), weighting=self.weighting)
        one_of(("mean", "zero"), start=self.start)
        at_least(1, max_iterations=self.max_iterations)
        in_range(0, 1, tolerance=self.tolerance)
        positive(smoothing=self.smoothing)

    def __call__(
        self, updates: Updates, state: State, rng: np.random.Generator
    ) -> tuple[Tensor, State]:
        """The step `[d]`."""
        refuse_majority(len(updates), self.assumed_malicious)
        weights = updates.num_examples.to(updates.matrix.device)
        if self.weighting == "uniform":
            weights = torch.ones_like(weights)
        at_first, steps = weights, self.max_iterations
        if self.start == "zero":  # which is no mean of the rows: its distances are their lengths
            at_first = _pulls(weights, row_norms(updates.matrix), self.smoothing)
            steps -= 1
        share = weiszfeld_weights(
            centred_gram(updates.matrix), weights, self.smoothing, steps, self.tolerance, at_first
        )
        return weighted_sum(share, updates.matrix), state


def weiszfeld_weights(
    gram: Tensor,
    weights: Tensor,
    smoothing: float,
    max_iterations: int,
    tolerance: float,
    at_first: Tensor | None = None,
) -> Tensor:
    """What share of each row the geometric median is made of: `[n]` float64, sums to 1.

    Args:
        gram: `[n, n]` float64, see `fedexp.core.geometry.centred_gram`.
        weights: `[n]`, any scale.
        smoothing: the least distance that counts.
        max_iterations: Weiszfeld steps at most.
        tolerance: the excess of the sum of distances, as a share of it, at which they end.
        at_first: what share of each row the start is made of `[n]`, any scale; None: the weights.
    """
    refuse_uncountable(gram)
    weights = weights / weights.sum()
    share = weights if at_first is None else at_first / at_first.sum()
    for _ in range(max_iterations):
        pull = _pulls(weights, distances_to_point(gram, share), smoothing)
        share, before = pull / pull.sum(), share
        moved = share - before
        gradient = float((moved @ gram @ moved).clamp_min(0).sqrt() * pull.sum())
        if 2 * gradient <= tolerance:
            break
    return share


def _pulls(weights: Tensor, distances: Tensor, smoothing: float) -> Tensor:
    """a_k `[n]` of the module's formula."""
    return weights / distances.clamp_min(smoothing)
