"""How much noise there was: by steps in which a canary that is out would have shown, had it joined.

Of a canary that is out a step holds noise alone, x ~ N(0, (s z)^2), where z is the noise that is
claimed and s the share of it that was added. Directions are orthogonal, steps have noise of their
own, so

    sum of (x / z)^2 over K looks  ~  s^2 chi^2(K)
    alarm:        P(chi^2(K) <= sum) <= level
    s is at most  sqrt(sum / q),   q: the level's quantile of chi^2(K)

Guesses about which canaries were in have to rule out an epsilon, and where it is above a few, noise
of a third of what is claimed does not let them. This asks for the noise itself: it supposes the
claimed mechanism with some other noise, sees a hundredth less of it, and sees nothing else.

Source: the chi-squared test of a variance (for instance Casella and Berger, "Statistical
Inference", 2002, section 8.3).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np

from fedexp.core.round_record import RoundRecord

Looks = Callable[[RoundRecord], tuple[float, int]]
"""A round's record -> (sum of (x / z)^2, K)."""


@final
@dataclass(frozen=True)
class MeasuredNoise:
    """What looks at canaries that are out add up to.

    >>> few = MeasuredNoise(squares=25.0, looks=100, level=0.05)  # half of what is claimed
    >>> few.share, few.alarm, MeasuredNoise(100.0, 100, 0.05).alarm
    (0.5, True, False)
    >>> round(few.at_most, 2), MeasuredNoise(0.0, 0, 0.05).alarm
    (0.57, False)
    """

    squares: float
    looks: int
    level: float  # of the alarm, and of the bound

    @property
    def share(self) -> float:
        """Of the claimed noise, as estimated; NaN without looks."""
        return math.sqrt(self.squares / self.looks) if self.looks else math.nan

    @property
    def p_value(self) -> float:
        """How probable so little is under the claimed noise."""
        from scipy.special import gammainc

        return float(gammainc(self.looks / 2, self.squares / 2)) if self.looks else 1.0

    @property
    def alarm(self) -> bool:
        """Whether it is too little."""
        return self.p_value <= self.level

    @property
    def at_most(self) -> float:
        """The largest share of the claimed noise that is not ruled out; infinite without looks."""
        from scipy.special import gammaincinv

        if not self.looks:
            return math.inf
        return math.sqrt(self.squares / (2 * float(gammaincinv(self.looks / 2, self.level))))

    def sentence(self) -> str:
        """For a person, after the audit."""
        return (
            f"The noise of {self.looks:,} looks at canaries that were out is {self.share:.4g} "
            f"times what is claimed, and at most {self.at_most:.4g} times"
        )


def made_up(share: float, looks: int, level: float, rng: np.random.Generator) -> MeasuredNoise:
    """What so many looks give at a share of the noise."""
    return MeasuredNoise(share**2 * float(rng.chisquare(looks)) if looks else 0.0, looks, level)
