"""A lower bound on epsilon from a single training run with many canaries in it.

Of m canaries each is in or out by a fair coin. The auditor sees what the mechanism released, puts
the canaries in order by a score, and guesses the r most certain: "in" for the top of the order,
"out" for the bottom. With v guesses right, a mechanism that is (epsilon, delta)-DP has the p-value

    p = P[W >= v] + 2 m delta max_{1 <= i <= v} P[v - i <= W < v] / i
    W ~ Binomial(r, e^epsilon / (e^epsilon + 1)),

and epsilon is at least every value with p < 1 - confidence. The bound holds for any score that does
not look at the coins, and only for an r that was fixed before the scores were seen. A low bound
proves nothing: the score may be a poor one, and even a perfect one falls short of epsilon (exact
Gaussian noise at epsilon 4, 1,000 canaries, r = 40: about 1.5).

Source: Steinke, Nasr and Jagielski, "Privacy Auditing with One (1) Training Run", NeurIPS 2023,
algorithm 1 and theorem 5.2. jax_privacy has the same p-value; it guesses "in" only, and pays for
looking at every threshold (Bonferroni) where r is fixed here.
"""

from __future__ import annotations

import math

import numpy as np

from fedexp.core.checks import InputError, at_least, in_range, non_negative

PRECISION = 1e-9  # of the bound


def one_run_p_value(canaries: int, guesses: int, right: int, epsilon: float, delta: float) -> float:
    """How likely so many right guesses, or more, are by chance if the claim holds.

    Args:
        canaries: m, each in with probability 1/2.
        guesses: r, fixed beforehand.
        right: v, how many guesses were right.
        epsilon: of the claim.
        delta: of the claim.

    Raises:
        InputError: not 0 <= right <= guesses <= canaries, or no such claim.

    >>> round(one_run_p_value(1000, 100, 90, epsilon=1.0, delta=1e-5), 9)
    0.000841289
    """
    at_least(1, canaries=canaries)
    at_least(0, guesses=guesses, right=right)
    in_range(0, canaries, guesses=guesses)
    in_range(0, guesses, right=right)
    non_negative(epsilon=epsilon)
    in_range(0, 1, delta=delta)
    return _p_value(canaries, guesses, right, epsilon, delta)


def _p_value(canaries: int, guesses: int, right: int, epsilon: float, delta: float) -> float:
    from scipy.stats import binom

    q = 1 / (1 + math.exp(-epsilon))
    beta = float(binom.sf(right - 1, guesses, q))
    if delta == 0 or right == 0:
        return beta
    i = np.arange(1, right + 1)
    alpha = float(np.max((binom.sf(right - i - 1, guesses, q) - beta) / i))
    return min(1.0, beta + 2 * canaries * delta * alpha)


def one_run_lower_bound(
    canaries: int, guesses: int, right: int, delta: float, confidence: float
) -> float:
    """The largest epsilon that so many right guesses rule out; 0 if they rule out none.

    Args:
        canaries: m, each in with probability 1/2.
        guesses: r, fixed beforehand.
        right: v, how many guesses were right.
        delta: of the claim that is audited.
        confidence: that the bound is not above the true epsilon, between 0 and 1.

    Raises:
        InputError: not 0 <= right <= guesses <= canaries, or no such delta or confidence.

    >>> round(one_run_lower_bound(100, 100, 100, delta=0.0, confidence=0.95), 4)
    3.493
    >>> one_run_lower_bound(100, 100, 50, delta=1e-5, confidence=0.95)
    0.0
    """
    check_confidence(confidence)
    allowed = 1 - confidence
    if one_run_p_value(canaries, guesses, right, 0.0, delta) >= allowed:
        return 0.0
    low, high = 0.0, 1.0
    while _p_value(canaries, guesses, right, high, delta) < allowed:
        low, high = high, 2 * high
    while high - low > PRECISION:  # p grows with epsilon
        middle = (low + high) / 2
        if _p_value(canaries, guesses, right, middle, delta) < allowed:
            low = middle
        else:
            high = middle
    return low


def check_confidence(confidence: float) -> None:
    """Refuse what is not strictly between 0 and 1."""
    in_range(0, 1, confidence=confidence)
    if not 0 < confidence < 1:
        raise InputError("must lie between 0 and 1, both excluded", "confidence", confidence)


def guesses_of(scores: np.ndarray, guesses: int) -> np.ndarray:
    """The r most certain guesses from scores `[m]`: 1 for in, -1 for out, 0 for none: `[m]` int64.

    Half of them are the highest scores (one more where r is odd), half the lowest; of equal scores
    the earlier canary counts as higher, which is no knowledge of the coins.

    >>> guesses_of(np.array([0.1, 5.0, -3.0, 0.2, 0.3]), 3).tolist()
    [0, 1, -1, 0, 1]
    """
    in_range(0, len(scores), guesses=guesses)
    order = np.argsort(-scores, kind="stable")
    said = np.zeros(len(scores), dtype=np.int64)
    said[order[: guesses - guesses // 2]] = 1
    said[order[len(scores) - guesses // 2 :]] = -1
    return said
