"""Majority vote on signs (signSGD): every coordinate moves one fixed distance, where most want to.

    step_i = s * sign(sum_k sign(delta_{k,i}))

Source: Bernstein, Zhao, Azizzadenesheli and Anandkumar, "signSGD with Majority Vote is
Communication Efficient and Fault Tolerant", ICLR 2019, algorithm 1. There s is the learning rate,
and clients send signs of gradients; here they send whole updates, and unless s is given it is the
median over clients of a client's mean |delta_{k,i}| over the coordinates, so that a step is as
large as a usual update. A tie moves nothing. Breakdown point: fewer than n / 2 attackers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from fedexp.aggregation.robust_learning_rate import net_votes
from fedexp.core.checks import at_least, positive, refuse_majority
from fedexp.core.columns import added_over_columns
from fedexp.core.norms import median
from fedexp.core.stateless import Stateless
from fedexp.core.types import State, Updates


@final
@dataclass(frozen=True)
class SignMajority(Stateless):
    """The sign that most clients want, times a step size: `[n, d]` to `[d]`.

    Args:
        assumed_malicious: how many of the clients that answer may lie; the rule does not use the
            number, but refuses where it could not hold (2f >= n).
        step_size: s, how far every coordinate moves a round, in the units of an update; None takes
            the median over clients of their mean absolute coordinate.

    >>> rows = Updates(torch.tensor([[2.0], [1.0], [-9.0]]), (0, 1, 2), torch.ones(3))
    >>> SignMajority(1, step_size=None)(rows, {}, np.random.default_rng(0))[0]
    tensor([2.])
    """

    assumed_malicious: int
    step_size: float | None

    def __post_init__(self) -> None:
        at_least(0, assumed_malicious=self.assumed_malicious)
        if self.step_size is not None:
            positive(step_size=self.step_size)

    def __call__(
        self, updates: Updates, state: State, rng: np.random.Generator
    ) -> tuple[Tensor, State]:
        """The step `[d]`."""
        matrix = updates.matrix
        refuse_majority(len(updates), self.assumed_malicious)
        size = self.step_size
        if size is None:
            size = float(median(mean_magnitudes(matrix)))
        return size * net_votes(matrix).sign(), state


def mean_magnitudes(matrix: Tensor) -> Tensor:
    """Mean absolute value of every row: `[n, d]` to `[n]` float64.

    >>> mean_magnitudes(torch.tensor([[1.0, -3.0], [0.0, 8.0]]))
    tensor([2., 4.], dtype=torch.float64)
    """

    def magnitudes(columns: slice) -> Tensor:
        sums: Tensor = torch.linalg.vector_norm(matrix[:, columns], ord=1, dim=1)
        return sums.double()

    return added_over_columns(magnitudes, matrix) / matrix.shape[1]
