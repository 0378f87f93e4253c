"""The mean of the clients' rows: FedAvg.

    step = sum_k w_k * delta_k,   w_k = n_k / sum_j n_j   (or 1 / n)

Source: McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized
Data", AISTATS 2017, algorithm 1. Breakdown point 0: a single client moves the mean wherever it
likes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, final

import numpy as np
import torch
from torch import Tensor

from fedexp.core.checks import one_of
from fedexp.core.norms import weighted_sum
from fedexp.core.stateless import Stateless
from fedexp.core.types import State, Updates


@final
@dataclass(frozen=True)
class Mean(Stateless):
    """Weighted mean of the rows: `[n, d]` to `[d]`.

    Args:
        weighting: "examples" weights a client by the number of its examples, as FedAvg does;
            "uniform" gives every client the same weight.

    >>> rows = Updates(torch.tensor([[0.0], [4.0]]), (0, 1), torch.tensor([1.0, 3.0]))
    >>> rng = np.random.default_rng(0)  # this rule draws nothing
    >>> Mean("examples")(rows, {}, rng)[0], Mean("uniform")(rows, {}, rng)[0]
    (tensor([3.]), tensor([2.]))
    """

    needs_only_the_sum: ClassVar[bool] = True

    weighting: Literal["examples", "uniform"]

    def sensitivity(self, clip_norm: float, n: int) -> float:
        """N times the mean is the sum of the rows, which one of them moves by its own length."""
        return clip_norm

    def __post_init__(self) -> None:
        one_of(("examples", "uniform"), weighting=self.weighting)

    def __call__(
        self, updates: Updates, state: State, rng: np.random.Generator
    ) -> tuple[Tensor, State]:
        """The step `[d]`."""
        weights = updates.num_examples
        if self.weighting == "uniform":
            weights = torch.ones_like(weights)
        return weighted_sum(weights / weights.sum(), updates.matrix), state
