"""Sign: of every number only on which side of 0 it is, and one mean size a block.

    C(p) = (||p||_1 / b) sign(p),   p a block of b numbers (the whole row: b = D),   sign(0) = 1
    message: a bit a number, and a float32 a block

With the mean size in it, C(p) is the nearest of all multiples of the signs, ||p - C(p)||^2 =
(1 - ||p||_1^2 / (b ||p||^2)) ||p||^2, and with error feedback nothing is lost for good. Without it
the small numbers of a row count as much as the large ones, and may never arrive.

Source: Karimireddy, Rebjock, Stich and Jaggi, "Error Feedback Fixes SignSGD and other Gradient
Compression Schemes", ICML 2019, algorithm 1 and lemma 8; blocks: Zheng, Huang and Kwok,
"Communication-Efficient Distributed Blockwise Momentum SGD with Error-Feedback", NeurIPS 2019.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from fedexp.channel.compression import Compression, in_blocks
from fedexp.core.checks import at_least


@final
@dataclass(frozen=True)
class Sign(Compression):
    """Signs, and the mean size.

    Args:
        block: numbers that share a size; None: the whole row.
        error_feedback: whether a client sends later what was left out.

    >>> row = torch.tensor([3.0, -1.0, 0.0, 4.0])
    >>> Sign(block=None, error_feedback=True).decoded(row, np.random.Generator)
    tensor([ 2., -2.,  2.,  2.])
    """

    block: int | None
    error_feedback: bool

    def __post_init__(self) -> None:
        if self.block is not None:
            at_least(1, block=self.block)

    def decoded(self, row: Tensor, rng: np.random.Generator) -> Tensor:
        """The row `[D]` of its blocks' mean sizes with its signs; draws nothing."""
        total = in_blocks(row.double().abs(), self.block).sum(dim=1, keepdim=True)
        ones = torch.ones_like(row, dtype=torch.float64)
        blocks = in_blocks(torch.where(row < 0, -ones, ones), self.block)
        numbers = blocks.abs().sum(dim=1, keepdim=True)  # the last block may be shorter
        return (blocks * (total / numbers)).flatten()[: len(row)].to(row.dtype)

    def message_bits(self, d: int) -> int:
        """Signs and sizes.

        >>> Sign(block=None, error_feedback=True).message_bits(1000)
        1032
        """
        return d + 32 * -(-d // (self.block or d))

    def as_read(self, row: Tensor) -> tuple[Tensor, Tensor]:
        """All numbers as they arrived."""
        return row, torch.ones_like(row, dtype=torch.bool)
