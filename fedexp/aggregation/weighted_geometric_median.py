"""The geometric median of sites that weigh by their examples, none by more than a share.

    step = argmin_z sum_k s_k ||delta_k - z||

`geometric_median` weighs by examples too, as its authors do, and one site with half of them is then
the median by itself. Source and iterations: `fedexp.aggregation.geometric_median`; the cap is ours.
Breakdown point: less than half of the weight.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
from torch import Tensor

from fedexp.aggregation.geometric_median import weiszfeld_weights
from fedexp.core.checks import at_least, in_range, positive
from fedexp.core.geometry import centred_gram
from fedexp.core.norms import weighted_sum
from fedexp.core.shares import check_cap, shares_against
from fedexp.core.stateless import Stateless
from fedexp.core.types import State, Updates


@final
@dataclass(frozen=True)
class WeightedGeometricMedian(Stateless):
    """Smoothed Weiszfeld with capped shares: `[n, d]` to `[d]`.

    Args:
        assumed_malicious: f, how many of the clients that answer may lie.
        max_share: the largest share of any client; None takes 1 / (2f + 1).
        max_iterations: Weiszfeld steps at most; as many as that with a tolerance of 0.
        tolerance: how far the sum of distances may be above the least, as a share of it.
        smoothing: nu, the least distance that counts, in the units of an update's norm.

    Raises:
        InputError: when called, half or more of the clients, or of the weight, may lie.
    """

    weighting: ClassVar[str] = "examples"

    assumed_malicious: int
    max_share: float | None
    max_iterations: int
    tolerance: float
    smoothing: float

    def __post_init__(self) -> None:
        at_least(0, assumed_malicious=self.assumed_malicious)
        check_cap(self.max_share)
        at_least(1, max_iterations=self.max_iterations)
        in_range(0, 1, tolerance=self.tolerance)
        positive(smoothing=self.smoothing)

    def __call__(
        self, updates: Updates, state: State, rng: np.random.Generator
    ) -> tuple[Tensor, State]:
        """The step `[d]`."""
        matrix = updates.matrix
        shares, _ = shares_against(updates.num_examples, self.assumed_malicious, self.max_share)
        made_of = weiszfeld_weights(
            centred_gram(matrix),
            shares.to(matrix.device),
            self.smoothing,
            self.max_iterations,
            self.tolerance,
        )
        return weighted_sum(made_of, matrix), state
