"""The coordinate-wise trimmed mean.

    step_i = mean over k of delta_{k,i} without the f largest and the f smallest values

Source: Yin, Chen, Ramchandran and Bartlett, "Byzantine-Robust Distributed Learning: Towards
Optimal Statistical Rates", ICML 2018, definition 2, with beta = f / n. Breakdown point: f
attackers, 2f < n.
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
class TrimmedMean(Stateless):
    """Mean of every coordinate without its f extremes on each side: `[n, d]` to `[d]`.

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
        """The step `[d]`."""
        n, f = len(updates), self.assumed_malicious
        refuse_majority(n, f)
        return mean_of_sorted(updates.matrix, f, n - f), state
