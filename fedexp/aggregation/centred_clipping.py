"""Centred clipping: the mean of the rows, none of which may pull the centre farther than a radius.

    v <- v + mean over k of (delta_k - v) min(1, radius / ||delta_k - v||);   step = v

`iterations` times, from the previous round's step (zeros in the first round). Distances are taken
on the rows themselves, which an iteration reads twice, and not on their Gram matrix: beside one row
that is far out the others' short distances would drown in its rounding, and the radius with them.

Source: Karimireddy, He and Jaggi, "Learning from History for Byzantine Robust Optimization", ICML
2021, section 4, where the radius tau is a number. Without a number the radius is the median of the
rows' distances to the centre, afresh in every iteration, after the clipping at the median norm of
Li, Ngai and Voigt, "An Experimental Study of Byzantine-Robust Aggregation Schemes in Federated
Learning", IEEE Transactions on Big Data, 2023, who take it over all rounds so far. Breakdown point:
a row moves the centre by at most radius / n in an iteration, and the median radius is an honest
one's as long as 2f < n.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from fedexp.aggregation.monna import squared_distances_to
from fedexp.core.checks import at_least, positive, refuse_majority
from fedexp.core.norms import weighted_sum
from fedexp.core.types import State, Updates


@final
@dataclass(frozen=True)
class CentredClipping:
    """Iterated clipping around the previous step: `[n, d]` to `[d]`.

    Args:
        assumed_malicious: how many of the clients that answer may lie; the rule does not use the
            number, but refuses where it could not hold (2f >= n).
        radius: tau, in the units of an update's norm; None takes the median of the rows' distances
            to the centre.
        iterations: L, how often the centre moves in a round.
    """

    assumed_malicious: int
    radius: float | None
    iterations: int

    def __post_init__(self) -> None:
        at_least(0, assumed_malicious=self.assumed_malicious)
        if self.radius is not None:
            positive(radius=self.radius)
        at_least(1, iterations=self.iterations)

    def init(self, d: int) -> State:
        """The centre `[d]`, zeros."""
        return {"centre": torch.zeros(d)}

    def __call__(
        self, updates: Updates, state: State, rng: np.random.Generator
    ) -> tuple[Tensor, State]:
        """The step `[d]`, which is also the next round's centre.

        Raises:
            InputError: half or more of the clients that answered may lie.
        """
        refuse_majority(len(updates), self.assumed_malicious)
        centre = state["centre"].to(updates.matrix)
        for _ in range(self.iterations):
            centre = clip_around(updates.matrix, centre, self.radius)
        return centre, {"centre": centre}


def clip_around(matrix: Tensor, centre: Tensor, radius: float | None) -> Tensor:
    """The centre `[d]` moved by the mean pull of the rows `[n, d]`, each cut to `radius`.

    Without a radius it is the median of the rows' distances to the centre.

    >>> clip_around(torch.tensor([[2.0], [4.0], [8.0], [-16.0]]), torch.zeros(1), radius=4.0)
    tensor([1.5000])
    """
    distances = squared_distances_to(matrix, centre).sqrt()
    limit = distances.quantile(0.5) if radius is None else radius
    # Tiny only keeps 0 / 0 out: a row on the centre does not pull, whatever its factor.
    tiny = torch.finfo(distances.dtype).tiny
    pull = (limit / distances.clamp_min(tiny)).clamp_max(1) / len(matrix)
    return float(1 - pull.sum()) * centre + weighted_sum(pull, matrix)
