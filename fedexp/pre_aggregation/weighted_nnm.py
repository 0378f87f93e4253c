"""Nearest-neighbour mixing for sites that weigh by their examples.

    y_k = mean of delta_j, weighted by s_j, over the rows j nearest to delta_k, 1 - beta in weight

The row itself is one of them, and the last of them counts in part; beta is the largest share that f
clients hold. With equal shares these are the n - f nearest rows, as in the source: Allouah,
Farhadkhani, Guerraoui, Gupta, Pinot and Stephan, "Fixing by Mixing: A Recipe for Optimal Byzantine
ML under Heterogeneity", AISTATS 2023. Breakdown point: that of the rule behind it, up to f
attackers who hold less than half of the weight.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch

from fedexp.core.checks import at_least
from fedexp.core.geometry import squared_distances
from fedexp.core.norms import mixed
from fedexp.core.shares import check_cap, masses_up_to, shares_against
from fedexp.core.types import Updates


@final
@dataclass(frozen=True)
class WeightedNearestNeighbourMixing:
    """The weighted mean of the rows nearest to each row: `[n, d]` to `[n, d]`.

    Row k stays client k's, with its weight; ties go to the client that comes first.

    Args:
        assumed_malicious: f, how many of the clients that answer may lie; with 0 every row becomes
            the weighted mean of all.
        max_share: the largest share of any client; None takes 1 / (2f + 1).

    Raises:
        InputError: when called, half or more of the clients, or of the weight, may lie.
    """

    assumed_malicious: int
    max_share: float | None

    def __post_init__(self) -> None:
        at_least(0, assumed_malicious=self.assumed_malicious)
        check_cap(self.max_share)

    def __call__(self, updates: Updates, rng: np.random.Generator) -> Updates:
        """The mixed rows; draws nothing."""
        rows, f = updates.matrix, self.assumed_malicious
        shares, held = shares_against(updates.num_examples, f, self.max_share)
        nearest = squared_distances(rows).argsort(dim=1, stable=True)
        masses = masses_up_to(shares.to(rows.device)[nearest], 1 - held)
        mixing = torch.zeros_like(masses).scatter_(1, nearest, masses)
        mixing /= mixing.sum(dim=1, keepdim=True)
        return updates.with_matrix(mixed(rows, mixing))
