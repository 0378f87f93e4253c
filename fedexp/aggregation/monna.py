"""Nearest-neighbour averaging, the mixing step of MoNNA: the rows nearest to one that is trusted.

    step = mean of the n - f rows delta_k with the smallest ||delta_k - delta_pivot||

The pivot's own row is one of them.

Source: Farhadkhani, Guerraoui, Gupta, Hoang, Pinot and Stephan, "Robust Collaborative Learning with
Linear Gradient Overhead", ICML 2023. There every peer mixes around its own row; a server has none,
so it names a client that it trusts. The pivot is a client's number, whatever the order of the rows;
byzfl takes a position. The momentum of the paper is `worker_momentum`.
Breakdown point: f attackers, 2f < n, and an honest pivot.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from fedexp.core.checks import InputError, at_least, refuse_majority
from fedexp.core.columns import added_over_columns
from fedexp.core.norms import weighted_sum
from fedexp.core.stateless import Stateless
from fedexp.core.types import State, Updates


@final
@dataclass(frozen=True)
class NearestNeighbourAveraging(Stateless):
    """The mean of the n - f rows nearest to a trusted client's: `[n, d]` to `[d]`.

    Args:
        assumed_malicious: f, how many of the clients that answer may lie.
        pivot_client: the number of the client that is trusted.
    """

    assumed_malicious: int
    pivot_client: int

    def __post_init__(self) -> None:
        at_least(0, assumed_malicious=self.assumed_malicious)
        at_least(0, pivot_client=self.pivot_client)

    def __call__(
        self, updates: Updates, state: State, rng: np.random.Generator
    ) -> tuple[Tensor, State]:
        """The step `[d]`; of rows equally far from the pivot the client that comes first.

        Raises:
            InputError: half or more of the clients that answered may lie, or the pivot is not
                among them.
        """
        n, f = len(updates), self.assumed_malicious
        refuse_majority(n, f)
        if self.pivot_client not in updates.client_ids:
            raise InputError(
                f"client {self.pivot_client} is not among the {n} that answered this round; the "
                "trusted client must take part in every round and send a row of its own",
                "pivot_client",
                self.pivot_client,
            )
        matrix, pivot = updates.matrix, updates.client_ids.index(self.pivot_client)
        nearest = squared_distances_to(matrix, matrix[pivot]).argsort(stable=True)[: n - f]
        share = matrix.new_zeros(n).index_fill_(0, nearest, 1 / (n - f))
        return weighted_sum(share, matrix), state


def squared_distances_to(matrix: Tensor, point: Tensor) -> Tensor:
    """Squared distances of the rows `[n, d]` to a point `[d]`: `[n]` float64.

    >>> squared_distances_to(torch.tensor([[0.0, 0.0], [3.0, 4.0]]), torch.zeros(2))
    tensor([ 0., 25.], dtype=torch.float64)
    """

    def squares(columns: slice) -> Tensor:
        away = matrix[:, columns] - point[columns]
        distances: Tensor = torch.linalg.vector_norm(away, dim=1)
        return distances.double().square()

    return added_over_columns(squares, matrix)
