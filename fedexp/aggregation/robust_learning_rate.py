"""Robust learning rate: go backwards along the coordinates on which too few clients agree.

    step_i = +mean_i where |sum_k sign(delta_{k,i})| >= theta, and -mean_i elsewhere

mean is the FedAvg mean of the rows. A backdoor is carried by few clients along coordinates that the
others leave alone or move both ways; there the step is turned round.

Source: Ozdayi, Kantarcioglu and Gel, "Defending against Backdoors in Federated Learning with Robust
Learning Rate", AAAI 2021, section "Robust Learning Rate", on top of FedAvg. theta counts net votes,
those for minus those against, as there. It should lie between f + 1 and n - f for f attackers.
Breakdown point 0, as the mean's: votes are bounded, the sizes of rows are not (bound them first).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
import torch
from torch import Tensor

from fedexp.aggregation.mean import Mean
from fedexp.core.checks import InputError, at_least, one_of, refuse_majority
from fedexp.core.columns import over_columns
from fedexp.core.stateless import Stateless
from fedexp.core.types import State, Updates


@final
@dataclass(frozen=True)
class RobustLearningRate(Stateless):
    """The mean, turned round where the net vote is below a threshold: `[n, d]` to `[d]`.

    Args:
        assumed_malicious: f, how many of the clients that answer may lie.
        threshold: theta, the net votes that a coordinate needs; None takes f + 1, the least that f
            attackers alone cannot reach.
        weighting: "examples" weights the mean by the number of examples; "uniform" does not. A vote
            is a vote either way.

    >>> rows = torch.tensor([[2.0, 9.0], [1.0, -1.0], [3.0, -2.0]])
    >>> updates = Updates(rows, (0, 1, 2), torch.ones(3))
    >>> RobustLearningRate(1, None, "uniform")(updates, {}, np.random.default_rng(0))[0]
    tensor([ 2., -2.])
    """

    assumed_malicious: int
    threshold: int | None
    weighting: Literal["examples", "uniform"]

    def __post_init__(self) -> None:
        at_least(0, assumed_malicious=self.assumed_malicious)
        if self.threshold is not None:
            at_least(1, threshold=self.threshold)
        one_of(("examples", "uniform"), weighting=self.weighting)

    def __call__(
        self, updates: Updates, state: State, rng: np.random.Generator
    ) -> tuple[Tensor, State]:
        """The step `[d]`."""
        n, f = len(updates), self.assumed_malicious
        refuse_majority(n, f)
        threshold = f + 1 if self.threshold is None else self.threshold
        if threshold > n:
            raise InputError(
                f"no coordinate can get so many votes: {n} clients are in the round",
                "threshold",
                threshold,
            )
        step, _ = Mean(self.weighting)(updates, {}, rng)
        return torch.where(net_votes(updates.matrix).abs() < threshold, -step, step), state


def net_votes(matrix: Tensor) -> Tensor:
    """Rows above 0 minus rows below 0, coordinate by coordinate: `[n, d]` to `[d]`.

    >>> net_votes(torch.tensor([[2.0, 0.0], [7.0, -1.0], [-1.0, -3.0]]))
    tensor([ 1., -2.])
    """
    votes = torch.empty_like(matrix[0])

    def work(chunks: Iterator[slice]) -> None:
        for columns in chunks:
            torch.sum(matrix[:, columns].sign(), dim=0, out=votes[columns])

    over_columns(work, matrix)
    return votes
