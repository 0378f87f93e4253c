"""Krum and Multi-Krum: keep the rows that have the closest neighbours.

    score_k = sum of ||delta_k - delta_j||^2 over the n - f - 2 nearest j
    step = the mean of the m rows with the lowest scores;   Krum is m = 1

Source: Blanchard, El Mhamdi, Guerraoui and Stainer, "Machine Learning with Adversaries: Byzantine
Tolerant Gradient Descent", NeurIPS 2017, section 4. Neighbours are n - f - 2 as there; some
libraries take n - f - 1. Breakdown point: f attackers, n >= 2f + 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from fedexp.core.checks import InputError, at_least
from fedexp.core.geometry import squared_distances
from fedexp.core.norms import weighted_sum
from fedexp.core.stateless import Stateless
from fedexp.core.types import State, Updates


@final
@dataclass(frozen=True)
class Krum(Stateless):
    """The mean of the `selected` rows with the lowest Krum scores: `[n, d]` to `[d]`.

    Args:
        assumed_malicious: f, how many of the clients that answer may lie.
        selected: m, how many rows to average; 1 is Krum, None takes n - f (Multi-Krum).
    """

    assumed_malicious: int
    selected: int | None

    def __post_init__(self) -> None:
        at_least(0, assumed_malicious=self.assumed_malicious)
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
        m = n - f if self.selected is None else self.selected
        if m > n - f:
            raise InputError(f"at most n - f = {n} - {f} rows can be trusted", "selected", m)
        best = krum_scores(squared_distances(updates.matrix), f).argsort(stable=True)[:m]
        share = torch.zeros(n, dtype=updates.matrix.dtype, device=updates.matrix.device)
        share[best] = 1 / m
        return weighted_sum(share, updates.matrix), state


def krum_scores(squared: Tensor, f: int) -> Tensor:
    """Sum of the n - f - 2 smallest squared distances to others, row by row: `[n]` float64."""
    n = len(squared)
    others = squared.clone().fill_diagonal_(torch.inf)
    return others.sort(dim=1).values[:, : n - f - 2].sum(dim=1)
