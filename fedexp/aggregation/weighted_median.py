"""The coordinate-wise median of sites that weigh by their examples.

    step_i = the value at half of the weight, of delta_{k,i} with shares s_k

The plain median counts heads: of ten hospitals, six with 200 patients each outvote one with 18,000.
Shares are capped, so that one site's size is not its word. Source: the weighted median minimises
sum_k s_k |delta_k - z|, as the geometric median of Pillutla, Kakade and Harchaoui, "Robust
Aggregation for Federated Learning", IEEE Transactions on Signal Processing 70, 2022, does in the
Euclidean norm; the unweighted rule is Yin et al., ICML 2018. Breakdown point: less than half of the
weight.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
from torch import Tensor

from fedexp.aggregation.weighted_order import weighted_median
from fedexp.core.checks import at_least
from fedexp.core.shares import check_cap, shares_against
from fedexp.core.stateless import Stateless
from fedexp.core.types import State, Updates


@final
@dataclass(frozen=True)
class WeightedMedian(Stateless):
    """Weighted median of every coordinate: `[n, d]` to `[d]`.

    Args:
        assumed_malicious: f, how many of the clients that answer may lie.
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
        shares, _ = shares_against(updates.num_examples, f, self.max_share)
        return weighted_median(updates.matrix, shares), state
