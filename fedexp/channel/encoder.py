"""What turns a client's row into whole numbers, and their sum back into a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from fedexp.channel.ring import Numbers
from fedexp.core.checks import InputError


@dataclass(frozen=True)
class Encoded:
    """A row as whole numbers."""

    values: Numbers  # [d] int64
    clipped: int  # coordinates that were cut to what can be sent


class Encoder(Protocol):
    """Between float32 rows and the signed whole numbers that are added."""

    def encode(self, row: Numbers, survivors: int, rng: np.random.Generator) -> Encoded:
        """Whole numbers for a row `[d]`; the sum will hold at least `survivors` clients.

        Raises:
            InputError: the row has NaN or Inf.
        """

    def bounded(self, rows: Tensor) -> Tensor:
        """Rows `[n, d]` cut to what can be sent, as `encode` cuts them, before rounding."""

    def decode(self, total: Numbers, weight: int) -> Numbers:
        """The mean row `[d]` float32 behind a sum `[d]` int64 of rows that together weigh so."""

    def largest_sum(self, clients: int, survivors: int, d: int) -> int:
        """How large a coordinate of the sum of so many clients' numbers can be, in size."""


def refuse_non_finite(row: Numbers) -> None:
    """Raise InputError for NaN or Inf: a cast to whole numbers would make something of them."""
    unusable = int(row.size - np.isfinite(row).sum())
    if unusable:
        raise InputError(f"has {unusable} coordinates that are NaN or Inf", "row", f"[{row.size}]")
