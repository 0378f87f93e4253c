"""Whether so many right guesses rule out a trade-off curve: the one-run test in its f-DP form.

Of m canaries each is in or out by a fair coin. The auditor makes c' guesses, and c are right. The
claim is a trade-off curve f, symmetric: no event of probability x in one world has more than
1 - f(x) in the other. With

    F(y) = f(1 - y)                       the least that an event of y here has over there
    h_c = tau (c' - c) / m                r_c = tau c / m
    h_i = max(h_{i+1}, F(r_{i+1}))        r_i = r_{i+1} + i / (c' - i) (h_i - h_{i+1}),  i < c

c right guesses or more have, under the claim, a probability of at most tau if r_0 + h_0 > c' / m:
the claim is ruled out at level tau. The number of guesses must be fixed before the scores are seen.

A curve here is a list of pairs (epsilon_j, delta_j), all of which the mechanism is said to keep:

    F(y) = max over j of max(0, 1 - delta_j - e^epsilon_j (1 - y), e^-epsilon_j (y - delta_j))

One pair says so little about events that are not rare that at epsilon 8 nothing rules it out; the
whole curve of Gaussian noise is ruled out by scores that such noise could not give.

Source: Mahloujifar, Melis and Chaudhuri, "Auditing f-Differential Privacy in One Run", ICML 2025
(arXiv 2410.22235), theorem 3.2, algorithm 3 for two choices, with h kept from falling; the curve of
pairs: Dong, Roth and Su, "Gaussian Differential Privacy", JRSS B 2022, proposition 2.5.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, final

import numpy as np

from fedexp.core.checks import InputError, at_least, in_range

LARGEST = 700.0  # an epsilon whose exponential is a number
PRECISION = 1.03  # of what is found by halving, as a ratio
WIDEST = 2.0**6  # how far from the claim a bound is looked for, in noise


class TradeOff(Protocol):
    """A claim: what an event has at least in one world that has so much in the other."""

    def least(self, y: float) -> float:
        """F(y), for a probability y."""


@final
@dataclass(frozen=True)
class Curve:
    """All pairs (epsilon, delta) that a mechanism is said to keep, none of them infinite."""

    pairs: tuple[tuple[float, float], ...]

    @classmethod
    def of(cls, pairs: Iterable[tuple[float, float]]) -> Curve:
        """Without the pairs that say nothing."""
        return cls(tuple((e, d) for e, d in pairs if e <= LARGEST and d < 1))

    @cached_property
    def _lines(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        epsilons, deltas = np.array(self.pairs).reshape(-1, 2).T
        return np.exp(epsilons), np.exp(-epsilons), deltas

    def least(self, y: float) -> float:
        """F(y) by the pairs.

        >>> Curve.of([(0.0, 0.1)]).least(0.5)
        0.4
        """
        if not self.pairs:
            return 0.0
        steep, flat, deltas = self._lines
        high, low = 1 - deltas - steep * (1 - y), flat * (y - deltas)
        return float(max(0.0, high.max(), low.max()))


def ruled_out(claim: TradeOff, canaries: int, guesses: int, right: int, level: float) -> bool:
    """Whether so many right guesses, or more, are less probable than `level` under the claim.

    Args:
        claim: the trade-off curve.
        canaries: m, each in with probability 1/2.
        guesses: c', fixed beforehand.
        right: c.
        level: tau, the probability of ruling out what is true.

    Raises:
        InputError: not 0 <= right <= guesses <= canaries, or no probability.
    """
    at_least(1, canaries=canaries, guesses=guesses)
    in_range(0, canaries, guesses=guesses)
    in_range(0, guesses, right=right)
    in_range(0, 1, level=level)
    h, r = level * (guesses - right) / canaries, level * right / canaries
    most = guesses / canaries
    for i in range(right - 1, -1, -1):
        if r + h > most:  # neither ever falls
            return True
        before, h = h, max(h, claim.least(r))
        r += i / (guesses - i) * (h - before)
    return right > 0 and r + h > most


def fewest_right(claim: TradeOff, canaries: int, guesses: int, level: float) -> int | None:
    """How many right guesses rule a claim out; None: not even all of them do."""
    least, most = 0, guesses
    if not ruled_out(claim, canaries, guesses, most, level):
        return None
    while most - least > 1:  # more right guesses are less probable
        middle = (least + most) // 2
        if ruled_out(claim, canaries, guesses, middle, level):
            most = middle
        else:
            least = middle
    return most


@final
@dataclass(frozen=True)
class Guessed:
    """What came out of guessing: several numbers of guesses, all fixed beforehand.

    A claim is ruled out if one of them does it, each at its share of the level (Bonferroni): who
    looks at all has not peeked.
    """

    canaries: int
    counts: tuple[tuple[int, int], ...]  # (guesses, how many were right)
    level: float  # of all together

    def rules_out(self, claim: TradeOff) -> bool:
        """Whether the claim is contradicted."""
        return self._at(claim, self.level)

    def _at(self, claim: TradeOff, level: float) -> bool:
        each = level / len(self.counts)
        return any(ruled_out(claim, self.canaries, g, right, each) for g, right in self.counts)

    def p_value(self, claim: TradeOff) -> float:
        """The smallest level at which the claim is ruled out; 1 where there is none."""
        if not self._at(claim, 1.0):
            return 1.0
        low, high = 1e-30, 1.0
        while high > low * PRECISION:
            middle = math.sqrt(low * high)
            low, high = (low, middle) if self._at(claim, middle) else (middle, high)
        return high

    def least_noise_ruled_out(self, claimed: Callable[[float], TradeOff]) -> float | None:
        """How often the claimed noise can be claimed before that is ruled out.

        Args:
            claimed: the claim with its noise multiplied; more noise claims more. Asked for 1 first:
                the answer is below 1 exactly if that is ruled out.

        Returns:
            The least factor that is ruled out, up to `PRECISION`; None: not even `WIDEST` is.
        """
        low, high, step = 1.0, 1.0, 2.0
        if self.rules_out(claimed(1.0)):
            while low > 1 / WIDEST and self.rules_out(claimed(low / step)):
                low /= step
            low, high = low / step, low
        else:
            while high < WIDEST and not self.rules_out(claimed(high * step)):
                high *= step
            if high >= WIDEST:
                return None
            low, high = high, high * step
        while high > low * PRECISION:
            middle = math.sqrt(low * high)
            low, high = (low, middle) if self.rules_out(claimed(middle)) else (middle, high)
        return high


def check_confidence(confidence: float) -> None:
    """Refuse what is not strictly between 0 and 1."""
    in_range(0, 1, confidence=confidence)
    if not 0 < confidence < 1:
        raise InputError("must lie between 0 and 1, both excluded", "confidence", confidence)


def guesses_of(scores: np.ndarray, guesses: int) -> np.ndarray:
    """The most certain guesses from scores `[m]`: 1 for in, -1 for out, 0 for none: `[m]` int64.

    Half of them are the highest scores (one more where the number is odd), half the lowest; of
    equal scores the earlier canary counts as higher, which is no knowledge of the coins.

    >>> guesses_of(np.array([0.1, 5.0, -3.0, 0.2, 0.3]), 3).tolist()
    [0, 1, -1, 0, 1]
    """
    in_range(0, len(scores), guesses=guesses)
    order = np.argsort(-scores, kind="stable")
    said = np.zeros(len(scores), dtype=np.int64)
    said[order[: guesses - guesses // 2]] = 1
    said[order[len(scores) - guesses // 2 :]] = -1
    return said


def guessed(
    scores: np.ndarray, inside: np.ndarray, guesses: Sequence[int], level: float
) -> Guessed:
    """Guess from scores `[m]`, and count who is right about the coins `inside` `[m]` bool."""
    truth = np.where(inside, 1, -1)
    counts = tuple((g, int(np.sum(guesses_of(scores, g) == truth))) for g in guesses)
    return Guessed(len(scores), counts, level)
