"""Means of neighbours in the cohort: the server sees a row for every 64 clients, say.

    row b = sum_{k in block b} w_k delta_k / sum_{k in block b} w_k,    w_k = n_k (or 1)

    block b   clients b s, b s + 1, ..., b s + s - 1 of the cohort, in its order
    w of b    sum_{k in block b} w_k, by which a rule that weighs by examples weighs the row

A mean of these means is the mean over the clients, so a rule that goes by the sum loses nothing,
and nobody needs to hold `[n, d]`: a backend that can (`TrainsMerged`) makes each row where the
block's clients are trained. The arithmetic is the same wherever that is, and so are the bits. Of
how a tree of sums keeps rounding small see Higham, "Accuracy and Stability of Numerical
Algorithms", 2nd edition, section 4.2.

It hides nothing: whoever trains or carries a block reads its rows. A row that is not finite spoils
its block's mean, and the server drops the block.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, final

import numpy as np
import torch
from torch import Tensor

from fedexp.core.checks import at_least, one_of
from fedexp.core.norms import weighted_sum
from fedexp.core.types import Delivery, Updates


@final
@dataclass(frozen=True)
class BlockMeans:
    """Hands on weighted means of `size` neighbours; nobody drops out.

    Args:
        size: s, clients a row.
        weighting: how clients weigh in their block, by their "examples" or "uniform".

    >>> matrix, examples = torch.tensor([[0.0], [4.0], [9.0]]), torch.tensor([1.0, 3.0, 2.0])
    >>> rows = Updates(matrix, (0, 1, 2), examples)
    >>> arrived = BlockMeans(size=2, weighting="examples").transmit(rows, np.random.default_rng(0))
    >>> arrived.updates.matrix, arrived.members
    (tensor([[3.], [9.]]), ((0, 1), (2,)))
    """

    sums: ClassVar[bool] = True

    size: int
    weighting: Literal["examples", "uniform"]

    def __post_init__(self) -> None:
        at_least(2, size=self.size)
        one_of(("examples", "uniform"), weighting=self.weighting)

    def rows(self, n: int) -> int:
        """A row a block."""
        return -(-n // self.size)

    def check(self, n: int, d: int) -> None:
        """Any clients can send any rows."""

    def merged(self, updates: Updates) -> Updates:
        """The blocks' means in place of the rows `[n, D]`."""
        blocks, weights = self._blocks(updates), self._weights(updates)
        matrix = updates.matrix.new_empty(len(blocks), updates.matrix.shape[1])
        for row, block in zip(matrix, blocks, strict=True):
            shares = weights[block] / weights[block].sum()
            row.copy_(weighted_sum(shares, updates.matrix[block]))
        return replace(updates, matrix=matrix, in_a_row=self.size)

    def transmit(self, updates: Updates, rng: np.random.Generator) -> Delivery:
        """The blocks' means; what every client sent is counted, headers are not."""
        received = self.as_received(updates, rng)
        return Delivery(
            updates=replace(received, clients_in=()),
            members=tuple(updates.client_ids[block] for block in self._blocks(updates)),
            dropped=(),
            lost=(),
            bytes_up=len(updates) * received.matrix[:1].nbytes,
            bytes_down=0,
            seconds={},
            clipped=0,
        )

    def as_received(self, updates: Updates, rng: np.random.Generator) -> Updates:
        """The blocks' means, each with the weight of its clients; draws nothing."""
        merged = updates if updates.in_a_row == self.size else self.merged(updates)
        blocks, weights = self._blocks(updates), self._weights(updates)
        return replace(
            merged,
            client_ids=tuple(range(-1, -len(blocks) - 1, -1)),
            num_examples=torch.tensor(
                [float(weights[block].sum()) for block in blocks], dtype=torch.float64
            ),
            metrics=(),
            clients_in=tuple(len(updates.client_ids[block]) for block in blocks),
            in_a_row=1,
        )

    def _blocks(self, updates: Updates) -> list[slice]:
        """Which clients are together, by their places in the cohort."""
        n = len(updates)
        return [slice(first, min(first + self.size, n)) for first in range(0, n, self.size)]

    def _weights(self, updates: Updates) -> Tensor:
        """Of the clients, `[n]` float64."""
        uniform = self.weighting == "uniform"
        return torch.ones_like(updates.num_examples) if uniform else updates.num_examples
