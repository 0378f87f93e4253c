"""What turns a client's row into whole numbers, and their sum back into a row."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import Protocol, cast

import numpy as np
from torch import Tensor

from fedexp.channel.ring import Numbers
from fedexp.core.checks import InputError
from fedexp.core.text import called

METHODS = ("encode", "bounded", "decode", "largest_sum")
KEY = "channel.encoder"  # in the rounds, where nobody puts the group in front


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


def refuse_another_part(encoder: object) -> None:
    """Raise InputError for what is no encoder."""
    missing = [name for name in METHODS if not callable(getattr(encoder, name, None))]
    if missing == list(METHODS):
        raise InputError("must be a part of its own, with a _target_", "encoder", encoder)
    if missing:
        raise InputError(f"has no {', '.join(missing)}", "encoder", called(encoder))


def largest_sum(encoder: Encoder, clients: int, survivors: int, d: int) -> int:
    """Of the encoder, which may be somebody's own; raises InputError for no whole number."""
    largest: object = encoder.largest_sum(clients, survivors, d)
    if not isinstance(largest, Integral) or largest < 0:
        # Before the run, where the builder puts the group in front of the key.
        raise _wrong("largest_sum", "a whole number, 0 or above", largest, encoder, key="encoder")
    return int(largest)


def encoded(encoder: Encoder, row: Numbers, survivors: int, rng: np.random.Generator) -> Encoded:
    """Of the encoder; raises InputError for what would be added up as something else."""
    made: object = encoder.encode(row, survivors, rng)
    if not isinstance(made, Encoded):
        raise _wrong("encode", "Encoded", made, encoder)
    if not _is(made.values, row.shape, np.int64):
        raise _wrong("encode", f"values {list(row.shape)} int64", made.values, encoder)
    return made


def decoded(encoder: Encoder, total: Numbers, weight: int) -> Numbers:
    """Of the encoder; raises InputError for what is no row."""
    row: object = encoder.decode(total, weight)
    if not _is(row, total.shape, np.float32):
        raise _wrong("decode", f"a row {list(total.shape)} float32", row, encoder)
    return cast(Numbers, row)


def _is(values: object, shape: tuple[int, ...], dtype: type[np.generic]) -> bool:
    return isinstance(values, np.ndarray) and values.shape == shape and values.dtype == dtype


def _wrong(method: str, wanted: str, given: object, encoder: object, key: str = KEY) -> InputError:
    there = type(given).__name__
    if isinstance(given, np.ndarray):
        there = f"{list(given.shape)} {given.dtype}"
    elif isinstance(given, Real):
        there = repr(given)
    why = f"must return {wanted} ({method}), and returned {there}"
    return InputError(why, key, called(encoder))
