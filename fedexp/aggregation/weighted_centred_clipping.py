"""Centred clipping for sites that weigh by their examples.

    v <- v + sum_k s_k (delta_k - v) min(1, radius / ||delta_k - v||);   step = v

`iterations` times, from the previous round's step (zeros in the first round). Without a number the
radius is the weighted median of the rows' distances to the centre. Source: Karimireddy, He and
Jaggi, "Learning from History for Byzantine Robust Optimization", ICML 2021, section 4, where s_k is
1 / n; see `fedexp.aggregation.centred_clipping`. Breakdown point: a row moves the centre by at most
s_k radius in an iteration, and the median radius is an honest one's while less than half of the
weight lies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
import torch
from torch import Tensor

from fedexp.aggregation.monna import squared_distances_to
from fedexp.aggregation.weighted_order import weighted_median
from fedexp.core.checks import at_least, positive
from fedexp.core.norms import weighted_sum
from fedexp.core.shares import check_cap, shares_against
from fedexp.core.types import State, Updates


@final
@dataclass(frozen=True)
class WeightedCentredClipping:
    """Iterated weighted clipping around the previous step: `[n, d]` to `[d]`.

    Args:
        assumed_malicious: f, how many of the clients that answer may lie.
        max_share: the largest share of any client; None takes 1 / (2f + 1).
        radius: tau, in the units of an update's norm; None takes the weighted median of the rows'
            distances to the centre.
        iterations: how often the centre moves in a round.

    Raises:
        InputError: when called, half or more of the clients, or of the weight, may lie.
    """

    weighting: ClassVar[str] = "examples"

    assumed_malicious: int
    max_share: float | None
    radius: float | None
    iterations: int

    def __post_init__(self) -> None:
        at_least(0, assumed_malicious=self.assumed_malicious)
        check_cap(self.max_share)
        if self.radius is not None:
            positive(radius=self.radius)
        at_least(1, iterations=self.iterations)

    def init(self, d: int) -> State:
        """The centre `[d]`, zeros."""
        return {"centre": torch.zeros(d)}

    def __call__(
        self, updates: Updates, state: State, rng: np.random.Generator
    ) -> tuple[Tensor, State]:
        """The step `[d]`, which is also the next round's centre."""
        shares, _ = shares_against(updates.num_examples, self.assumed_malicious, self.max_share)
        centre = state["centre"].to(updates.matrix)
        for _ in range(self.iterations):
            centre = _moved(updates.matrix, shares.to(centre.device), centre, self.radius)
        return centre, {"centre": centre}


def _moved(matrix: Tensor, shares: Tensor, centre: Tensor, radius: float | None) -> Tensor:
    """The centre `[d]` moved by the weighted pull of the rows, each cut to the radius."""
    distances = squared_distances_to(matrix, centre).sqrt()
    limit = weighted_median(distances[:, None], shares) if radius is None else radius
    # Tiny only keeps 0 / 0 out: a row on the centre does not pull, whatever its factor.
    tiny = torch.finfo(distances.dtype).tiny
    pull = shares * (limit / distances.clamp_min(tiny)).clamp_max(1)
    return float(1 - pull.sum()) * centre + weighted_sum(pull, matrix)
