"""How the clients' learning rate changes over the rounds: maps a round to a factor on `lr`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

from fedexp.core.checks import at_least, in_range, positive


@final
@dataclass(frozen=True)
class Constant:
    """The same learning rate in every round."""

    def __call__(self, round: int) -> float:
        """Factor for the round (from 0): 1."""
        return 1.0


@final
@dataclass(frozen=True)
class Exponential:
    """lr * decay ** round.

    >>> Exponential(decay=0.5)(2)
    0.25
    """

    decay: float

    def __post_init__(self) -> None:
        positive(decay=self.decay)

    def __call__(self, round: int) -> float:
        """Factor for the round (from 0)."""
        return float(self.decay**round)


@final
@dataclass(frozen=True)
class Cosine:
    """Half a cosine from 1 in the first round to `final` in round `rounds`, then `final`.

    Loshchilov and Hutter, "SGDR", ICLR 2017, equation 5, without restarts.

    >>> Cosine(rounds=10, final=0.1)(10)
    0.1
    """

    rounds: int
    final: float

    def __post_init__(self) -> None:
        at_least(1, rounds=self.rounds)
        in_range(0, 1, final=self.final)

    def __call__(self, round: int) -> float:
        """Factor for the round (from 0)."""
        progress = min(round / self.rounds, 1.0)
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * progress)) / 2
