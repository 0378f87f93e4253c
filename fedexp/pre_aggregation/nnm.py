"""Nearest-neighbour mixing: every row becomes the mean of the rows that lie nearest to it.

    y_k = 1 / (n - f) * sum of delta_j over the n - f rows j nearest to delta_k, itself included

Honest rows that differ because their clients' data differ move together, so that the rule behind
has less honest spread to hide an attacker in. Source: Allouah, Farhadkhani, Guerraoui, Gupta, Pinot
and Stephan, "Fixing by Mixing: A Recipe for Optimal Byzantine ML under Heterogeneity", AISTATS
2023, where the method is NNM. Breakdown point: that of the rule behind it, up to f attackers with
2f < n.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch

from fedexp.core.checks import at_least, refuse_majority
from fedexp.core.geometry import squared_distances
from fedexp.core.norms import mixed
from fedexp.core.types import Updates


@final
@dataclass(frozen=True)
class NearestNeighbourMixing:
    """The mean of the n - f rows nearest to each row: `[n, d]` to `[n, d]`.

    Row k stays client k's, with its weight; ties go to the client that comes first.

    Args:
        assumed_malicious: f, how many of the clients that answer may lie; with 0 every row becomes
            the mean of all.

    Raises:
        InputError: half or more of the clients that answered may lie.

    >>> rows = torch.tensor([[0.0], [2.0], [9.0]])
    >>> weights = torch.ones(3, dtype=torch.float64)
    >>> mix = NearestNeighbourMixing(assumed_malicious=1)
    >>> mix(Updates(rows, (0, 1, 2), weights), None).matrix.flatten()
    tensor([1.0000, 1.0000, 5.5000])
    """

    assumed_malicious: int

    def __post_init__(self) -> None:
        at_least(0, assumed_malicious=self.assumed_malicious)

    def __call__(self, updates: Updates, rng: np.random.Generator) -> Updates:
        """The mixed rows; draws nothing."""
        n, f = len(updates), self.assumed_malicious
        refuse_majority(n, f)
        rows = updates.matrix
        nearest = squared_distances(rows).argsort(dim=1, stable=True)[:, : n - f]
        # As a product with the [n, n] weights: picking rows by index would take n - f copies.
        mixing = torch.zeros(n, n, dtype=rows.dtype, device=rows.device)
        mixing.scatter_(1, nearest, 1 / (n - f))
        return updates.with_matrix(mixed(rows, mixing))
