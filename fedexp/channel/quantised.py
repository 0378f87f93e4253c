"""Quantised (QSGD): every number as one of few levels of its block's length, rounded at random.

    C(p)_i = ||p|| sign(p_i) x_i / (1 + w),   x_i = l/s or (l + 1)/s,   l = floor(s |p_i| / ||p||)
    P(x_i = (l + 1)/s) = s |p_i| / ||p|| - l,   so that E x_i = |p_i| / ||p||
    s = 2^(bits - 1) - 1 levels a side;   p a block of b numbers, with its own L2 norm
    unbiased:     w = 0;   E ||p - C(p)||^2 <= min(b / s^2, sqrt(b) / s) ||p||^2
    contracting:  w = min(b / s^2, sqrt(b) / s), of which error feedback has need
    message: `bits` bits a number (2 s + 1 values: a level and its sign), and a float32 a block

The paper codes levels by Elias' code, which is shorter where most are 0; here all have one length,
so that the bytes are known beforehand and say nothing of the row.

Source: Alistarh, Grubic, Li, Tomioka and Vojnovic, "QSGD: Communication-Efficient SGD via Gradient
Quantization and Encoding", NeurIPS 2017, section 3.1, lemma 3.1, and section 4 (blocks of 512). The
contracting scale: Horváth, Kovalev, Mishchenko, Richtárik and Stich, "Stochastic Distributed
Learning with Gradient Quantization and Double Variance Reduction", 2019.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from fedexp.channel.compression import (
    SCALINGS,
    Compression,
    Scaling,
    in_blocks,
    refuse_growing_errors,
)
from fedexp.core.checks import at_least, in_range, one_of


@final
@dataclass(frozen=True)
class Quantised(Compression):
    """All numbers of every row, each in a few bits.

    Args:
        bits: of a number, 2 to 16.
        block: numbers that share a length; None: the whole row.
        scaling: "unbiased" or "contracting".
        error_feedback: whether a client sends later what was rounded away.
    """

    bits: int
    block: int | None
    scaling: Scaling
    error_feedback: bool

    def __post_init__(self) -> None:
        in_range(2, 16, bits=self.bits)
        if self.block is not None:
            at_least(1, block=self.block)
        one_of(SCALINGS, scaling=self.scaling)
        refuse_growing_errors(self.error_feedback, self.scaling)

    @property
    def levels(self) -> int:
        """s, above 0 on either side."""
        return int(2 ** (self.bits - 1)) - 1

    def decoded(self, row: Tensor, rng: np.random.Generator) -> Tensor:
        """The row `[D]` of its blocks' levels."""
        blocks = in_blocks(row.double(), self.block)
        norms = torch.linalg.vector_norm(blocks, dim=1, keepdim=True)
        exact = self.levels * blocks.abs() / torch.where(norms > 0, norms, 1.0)
        drawn = torch.from_numpy(rng.random(len(row))).to(row.device)
        up = in_blocks(drawn, self.block) < exact - exact.floor()
        levels = (exact.floor() + up) * blocks.sign()
        # What is sent is the norm in single precision.
        scale = norms.float().double() / self.levels / (1 + self._loss(blocks.shape[1]))
        decoded: Tensor = levels * scale
        return decoded.flatten()[: len(row)].to(row.dtype)

    def message_bits(self, d: int) -> int:
        """Levels and norms.

        >>> quantised = Quantised(bits=4, block=512, scaling="unbiased", error_feedback=False)
        >>> quantised.message_bits(1024)  # 1024 x 4, and 2 x 32
        4160
        """
        return self.bits * d + 32 * -(-d // (self.block or d))

    def as_read(self, row: Tensor) -> tuple[Tensor, Tensor]:
        """All numbers, in the length that they were given."""
        size = len(row) if self.block is None else self.block
        return row * (1 + self._loss(size)), torch.ones_like(row, dtype=torch.bool)

    def _loss(self, block: int) -> float:
        """w: the most that is lost of a block's squared length on average, where it counts."""
        if self.scaling == "unbiased":
            return 0.0
        return min(block / self.levels**2, math.sqrt(block) / self.levels)
