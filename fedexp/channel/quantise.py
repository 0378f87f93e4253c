"""Whole numbers for floats: clip to a range, then round up or down at random, without bias.

    step = range / (2^(bits - 1) - 1);   q = floor(clip(x, -range, range) / step + u),  u ~ U[0, 1)

So E[q step] = clip(x), the error of one client is below a step, and 0 stays 0.

Source: Alistarh et al., "QSGD: Communication-Efficient SGD via Gradient Quantization and
Encoding", NeurIPS 2017, section 3.1, with a fixed range in the place of the row's norm: the norm
would have to be sent in the clear.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from torch import Tensor

from fedexp.channel.encoder import Encoded, refuse_non_finite
from fedexp.channel.ring import Numbers
from fedexp.core.checks import InputError, at_least, positive

MAX_BITS = 32


@final
@dataclass(frozen=True)
class Quantiser:
    """Stochastic rounding to 2^bits - 1 levels that lie evenly in [-value_range, value_range].

    Args:
        bits: of a quantised coordinate, its sign among them; 2 to 32.
        value_range: coordinates beyond it are cut.

    >>> quantiser = Quantiser(bits=3, value_range=3.0)
    >>> encoded = quantiser.encode(np.array([-9.0, 0.0, 2.0]), 3, np.random.default_rng(0))
    >>> encoded.values, encoded.clipped
    (array([-3,  0,  2]), 1)
    >>> quantiser.decode(np.array([2, -4, 1]), weight=2)
    array([ 1. , -2. ,  0.5], dtype=float32)
    """

    bits: int
    value_range: float

    def __post_init__(self) -> None:
        at_least(2, bits=self.bits)
        if self.bits > MAX_BITS:
            raise InputError(f"must lie between 2 and {MAX_BITS}", "bits", self.bits)
        positive(value_range=self.value_range)

    @property
    def largest(self) -> int:
        """The largest level."""
        return int(2 ** (self.bits - 1) - 1)

    @property
    def step(self) -> float:
        """Between two levels, in the row's unit."""
        return self.value_range / self.largest

    def encode(self, row: Numbers, survivors: int, rng: np.random.Generator) -> Encoded:
        """Levels `[d]` int64 for a row `[d]`; raises InputError for NaN or Inf."""
        refuse_non_finite(row)
        clipped = int(np.count_nonzero(np.abs(row) > self.value_range))
        levels = row / self.step if row.dtype == np.float64 else row.astype(np.float64) / self.step
        levels += rng.random(len(row))
        np.floor(levels, out=levels)
        # After rounding: what lies outside is cut, and what rounding lifted beyond the last level.
        np.clip(levels, -self.largest, self.largest, out=levels)
        return Encoded(levels.astype(np.int64), clipped)

    def bounded(self, rows: Tensor) -> Tensor:
        """Every coordinate within the range."""
        return rows.clamp(-self.value_range, self.value_range)

    def decode(self, total: Numbers, weight: int) -> Numbers:
        """The mean row `[d]` float32."""
        return (total * (self.step / weight)).astype(np.float32)

    def largest_sum(self, clients: int, survivors: int, d: int) -> int:
        """Everybody at the last level."""
        return clients * self.largest
