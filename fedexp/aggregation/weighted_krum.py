"""Krum and Multi-Krum for sites that weigh by their examples.

    score_k = sum over the nearest j of p_j ||delta_k - delta_j||^2 / u
    step    = the row with the lowest score, or the weighted mean of the lowest, 1 - beta in weight

u is the smallest share, beta the largest that f clients hold. A site of share s counts as s / u
clients who send the same: its own others, s - u in weight, are neighbours at distance 0, and the
neighbours p together weigh 1 - beta - 2u, the last of them in part. With equal shares this is 1 / n
times n - f - 2 neighbours, as in the source: Blanchard, El Mhamdi, Guerraoui and Stainer, "Machine
Learning with Adversaries: Byzantine Tolerant Gradient Descent", NeurIPS 2017, section 4. Breakdown
point: f attackers, 2 beta + 2u < 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
import torch
from torch import Tensor

from fedexp.core.checks import InputError, at_least
from fedexp.core.geometry import squared_distances
from fedexp.core.norms import weighted_sum
from fedexp.core.shares import ROUNDING, check_cap, masses_up_to, shares_against
from fedexp.core.stateless import Stateless
from fedexp.core.types import State, Updates


@final
@dataclass(frozen=True)
class WeightedKrum(Stateless):
    """The weighted mean of the rows with the lowest scores: `[n, d]` to `[d]`.

    Args:
        assumed_malicious: f, how many of the clients that answer may lie.
        max_share: the largest share of any client; None takes 1 / (2f + 3).
        selected: how many rows to average; 1 is Krum, None takes those that hold 1 - beta of the
            weight, the last of them in part (Multi-Krum).

    Raises:
        InputError: when called, there are fewer than 2f + 3 clients, f of them hold too much, or
            more rows are selected than can be trusted.
    """

    weighting: ClassVar[str] = "examples"

    assumed_malicious: int
    max_share: float | None
    selected: int | None

    def __post_init__(self) -> None:
        at_least(0, assumed_malicious=self.assumed_malicious)
        check_cap(self.max_share)
        if self.selected is not None:
            at_least(1, selected=self.selected)

    def __call__(
        self, updates: Updates, state: State, rng: np.random.Generator
    ) -> tuple[Tensor, State]:
        """The step `[d]`; ties go to the client that comes first."""
        n, f = len(updates), self.assumed_malicious
        if n < 2 * f + 3:
            raise InputError(
                f"needs at least 2 x {f} + 3 clients, but {n} are in the round",
                "assumed_malicious",
                f,
            )
        if self.selected is not None and self.selected > n - f:
            reason = f"at most n - f = {n} - {f} rows can be trusted"
            raise InputError(reason, "selected", self.selected)
        matrix = updates.matrix
        shares, held = shares_against(updates.num_examples, f, self.max_share, spare=3)
        shares = shares.to(matrix.device)
        self._refuse_heavy(shares, held)
        best = weighted_krum_scores(squared_distances(matrix), shares, held).argsort(stable=True)
        if self.selected is None:
            taken = masses_up_to(shares[best], 1 - held)
        else:
            taken = shares[best] * (torch.arange(n, device=matrix.device) < self.selected)
        made_of = torch.zeros_like(shares).index_copy_(0, best, taken / taken.sum())
        return weighted_sum(made_of, matrix), state

    def _refuse_heavy(self, shares: Tensor, held: float) -> None:
        if 2 * held + 2 * float(shares[shares > 0].min()) >= 1 - ROUNDING:
            f = self.assumed_malicious
            raise InputError(
                f"the {f} heaviest clients hold {held:.1%} of the weight, which leaves the others "
                f"no majority of neighbours: use at most 1 / {2 * f + 3} = {1 / (2 * f + 3):.3f}",
                "max_share",
                self.max_share,
            )


def weighted_krum_scores(squared: Tensor, shares: Tensor, held: float) -> Tensor:
    """Sum of the weighted squared distances to the nearest neighbours: `[n]` float64.

    Args:
        squared: squared distances of the rows `[n, n]` float64, diagonal 0.
        shares: `[n]` float64, sum 1.
        held: the largest share that the assumed attackers hold.
    """
    unit = shares[shares > 0].min()
    others = squared.clone().fill_diagonal_(torch.inf)
    distances, order = others.sort(dim=1, stable=True)
    own = (shares - unit).clamp_min(0)
    of_others = shares.expand_as(others).clone().fill_diagonal_(0)
    masses = masses_up_to(of_others.gather(1, order), (1 - held - 2 * unit - own)[:, None])
    # A row without weight is nobody's neighbour, and nobody to be selected.
    scores = (masses * distances).masked_fill(masses == 0, 0).sum(dim=1) / unit
    return scores.masked_fill(shares == 0, torch.inf)
