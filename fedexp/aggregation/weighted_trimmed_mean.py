"""The coordinate-wise trimmed mean of sites that weigh by their examples.

    step_i = mean of delta_{k,i}, weighted by s_k, between beta and 1 - beta of the weight

beta is the largest share that f clients hold. Source: Yin, Chen, Ramchandran and Bartlett,
"Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates", ICML 2018, definition 2,
where all weigh alike and beta = f / n. Breakdown point: f attackers, who hold less than half.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
from torch import Tensor

from fedexp.aggregation.weighted_order import weighted_trimmed_mean
from fedexp.core.checks import at_least
from fedexp.core.shares import check_cap, shares_against
from fedexp.core.stateless import Stateless
from fedexp.core.types import State, Updates


@final
@dataclass(frozen=True)
class WeightedTrimmedMean(Stateless):
    """Weighted mean of every coordinate without the extremes on each side: `[n, d]` to `[d]`.

    Args:
        assumed_malicious: f, how many of the clients that answer may lie; with 0 it is the weighted
            mean.
        max_share: the largest share of any client; None takes 1 / (2f + 1).

    Raises:
        InputError: when called, half or more of the clients, or of the weight, may lie.
    """

    weighting: ClassVar[str] = "examples"

    assumed_malicious: int
    max_share: float | None

    def __post_init__(self) -> None:
        at_least(0, assumed_malicious=self.assumed_malicious)
        check_cap(self.max_share)

    def __call__(
        self, updates: Updates, state: State, rng: np.random.Generator
    ) -> tuple[Tensor, State]:
        """The step `[d]`."""
        f = self.assumed_malicious
        shares, held = shares_against(updates.num_examples, f, self.max_share)
        return weighted_trimmed_mean(updates.matrix, shares, held), state
