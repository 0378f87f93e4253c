"""The coordinate-wise median.

    step_i = median over k of delta_{k,i};   for even n the mean of the two middle values

Source: Yin, Chen, Ramchandran and Bartlett, "Byzantine-Robust Distributed Learning: Towards
Optimal Statistical Rates", ICML 2018, definition 1. Breakdown point: fewer than n / 2 attackers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from torch import Tensor

from fedexp.aggregation.order_statistics import mean_of_sorted
from fedexp.core.checks import at_least, refuse_majority
from fedexp.core.stateless import Stateless
from fedexp.core.types import State, Updates


@final
@dataclass(frozen=True)
class Median(Stateless):
    """Median of every coordinate, all clients alike: `[n, d]` to `[d]`.

    Args:
        assumed_malicious: how many of the clients that answer the defender believes may lie; the
            rule does not use the number, but refuses where it could not hold (2f >= n).
    """

    assumed_malicious: int

    def __post_init__(self) -> None:
        at_least(0, assumed_malicious=self.assumed_malicious)

    def __call__(
        self, updates: Updates, state: State, rng: np.random.Generator
    ) -> tuple[Tensor, State]:
        """The step `[d]`."""
        n = len(updates)
        refuse_majority(n, self.assumed_malicious)
        return mean_of_sorted(updates.matrix, (n - 1) // 2, n // 2 + 1), state
