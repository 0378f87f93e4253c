"""FLTrust: trust a row as far as it points where the server's own update points.

    t_k = max(0, cos(delta_k, g));   step = sum_k t_k (||g|| / ||delta_k||) delta_k / sum_k t_k

g is the update that the server trains each round on a few clean examples of its own (root data).
Every row is scaled to the norm of g, so that no row gains by being long.

Source: Cao, Fang, Liu and Gong, "FLTrust: Byzantine-robust Federated Learning via Trust
Bootstrapping", NDSS 2021, section IV. Where nobody is trusted, the step is zero: the model stays.
Breakdown point: any number of attackers, as long as g is right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from fedexp.core.checks import InputError, at_least
from fedexp.core.columns import added_over_columns
from fedexp.core.norms import row_norms, weighted_sum
from fedexp.core.stateless import Stateless
from fedexp.core.types import State, Updates


@final
@dataclass(frozen=True)
class FLTrust(Stateless):
    """The mean of the rows, scaled to the server's norm and weighted by trust: `[n, d]` to `[d]`.

    Args:
        root_examples: clean examples that the server holds, taken from the clients'; it trains on
            them each round without noise (nothing promised covers them), and the row that results
            comes in as `Updates.reference` `[d]`.

    >>> rows, clean = torch.tensor([[8.0, 0.0], [-1.0, 0.0]]), torch.tensor([2.0, 0.0])
    >>> updates = Updates(rows, (0, 1), torch.ones(2), reference=clean)
    >>> FLTrust(root_examples=100)(updates, {}, np.random.default_rng(0))[0]
    tensor([2., 0.])
    """

    root_examples: int

    def __post_init__(self) -> None:
        at_least(1, root_examples=self.root_examples)

    def __call__(
        self, updates: Updates, state: State, rng: np.random.Generator
    ) -> tuple[Tensor, State]:
        """The step `[d]`; raises InputError if the updates come without a reference."""
        if updates.reference is None:
            raise InputError("fltrust needs root data: no update of the server's own came along")
        matrix, reference = updates.matrix, updates.reference.to(updates.matrix)
        length = row_norms(reference[None])
        norms = row_norms(matrix)
        trust = torch.relu(_products(matrix, reference) / (norms * length))
        trust = trust.nan_to_num_(nan=0, posinf=0)  # rows that point nowhere: see norms.py
        share = torch.where(trust > 0, trust * length / norms, 0)
        total = trust.sum()
        return weighted_sum(share / torch.where(total > 0, total, 1), matrix), state


def _products(matrix: Tensor, vector: Tensor) -> Tensor:
    """Inner products of the rows with one vector: `[n, d]` and `[d]` to `[n]` float64."""

    def products(columns: slice) -> Tensor:
        return (matrix[:, columns] @ vector[columns]).double()

    return added_over_columns(products, matrix)
