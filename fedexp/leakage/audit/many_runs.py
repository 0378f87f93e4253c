"""A lower bound on epsilon from many runs with the member, and as many without it.

A threshold on the score says which world a run comes from: "with" from the threshold on. For any
(epsilon, delta)-DP mechanism

    1 - FNR <= e^epsilon FPR + delta   and   1 - FPR <= e^epsilon FNR + delta,

so that with upper confidence limits on both error rates (Clopper and Pearson, (1 - confidence) / 2
each)

    epsilon >= max(0, ln((1 - FNR_u - delta) / FPR_u), ln((1 - FPR_u - delta) / FNR_u)).

The threshold is chosen on half of the runs and the error rates are counted on the other half: on
the same runs the bound would not hold. Whatever the mechanism, n runs a world cannot show more than
about ln(n / 7); of exact Gaussian noise at epsilon 8 and 1, 1,000 of them show about 2.3 and 0.03.
A low bound proves nothing.

Sources: Jagielski, Ullman and Oprea, "Auditing Differentially Private Machine Learning: How Private
is Private SGD?", NeurIPS 2020; Nasr, Songi, Thakurta, Papernot and Carlini, "Adversary
Instantiation: Lower Bounds for Differentially Private Machine Learning", IEEE S&P 2021; Clopper and
Pearson, "The Use of Confidence or Fiducial Limits Illustrated in the Case of the Binomial",
Biometrika 1934.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from fedexp.core.checks import InputError, at_least, in_range
from fedexp.leakage.audit.f_dp import check_confidence


def upper_limit(errors: ArrayLike, trials: int, significance: float) -> np.ndarray:
    """One-sided upper limits of Clopper and Pearson on the rates behind `errors` `[k]`: `[k]`.

    With none in n it is 1 - significance^(1 / n), with n in n it is 1.

    >>> upper_limit([0, 50, 100], 100, 0.025).round(4).tolist()
    [0.0362, 0.6017, 1.0]
    """
    from scipy.stats import beta

    errors = np.asarray(errors)
    # The parameter of a rate that may be 1 would be 0, which beta does not know.
    limits = beta.ppf(1 - significance, errors + 1, np.maximum(trials - errors, 1))
    return np.asarray(np.where(errors < trials, limits, 1.0))


def epsilon_of_errors(
    false_negatives: ArrayLike,
    positives: int,
    false_positives: ArrayLike,
    negatives: int,
    delta: float,
    confidence: float,
) -> np.ndarray:
    """The bounds that thresholds `[k]` with these errors give: `[k]`, at least 0.

    Args:
        false_negatives: `[k]` runs with the member that were taken for runs without.
        positives: runs with the member.
        false_positives: `[k]` runs without it that were taken for runs with.
        negatives: runs without the member.
        delta: of the claim that is audited.
        confidence: that the bound of one threshold, chosen beforehand, is not above epsilon.

    Raises:
        InputError: no runs, or no such delta or confidence.

    >>> float(epsilon_of_errors(0, 1000, 0, 1000, delta=0.0, confidence=0.95).round(3))
    5.601
    """
    at_least(1, positives=positives, negatives=negatives)
    in_range(0, 1, delta=delta)
    check_confidence(confidence)
    each = (1 - confidence) / 2
    fnr = upper_limit(false_negatives, positives, each)
    fpr = upper_limit(false_positives, negatives, each)
    # What is left of a rate after delta may be nothing: such a threshold shows nothing.
    one, other = np.maximum(1 - fnr - delta, 0) / fpr, np.maximum(1 - fpr - delta, 0) / fnr
    return np.asarray(np.log(np.maximum(np.maximum(one, other), 1.0)))


def many_runs_lower_bound(
    scores_with: np.ndarray,
    scores_without: np.ndarray,
    delta: float,
    confidence: float,
    rng: np.random.Generator,
) -> float:
    """The bound from one score a run, larger where the member seems to be in.

    Args:
        scores_with: `[n]`, of independent runs with the member.
        scores_without: `[k]`, of independent runs without it.
        delta: of the claim that is audited.
        confidence: that the bound is not above the true epsilon.
        rng: deals the runs into the half that chooses the threshold and the half that counts.

    Raises:
        InputError: fewer than two runs of a kind, scores that are not finite, or no such delta or
            confidence.
    """
    for name, scores in (("scores_with", scores_with), ("scores_without", scores_without)):
        at_least(2, **{name: len(scores)})
        if not np.isfinite(scores).all():
            raise InputError("must be finite numbers", name, "nan or infinite")
    choosing_with, counting_with = _halves(scores_with, rng)
    choosing_without, counting_without = _halves(scores_without, rng)
    candidates = np.unique(np.concatenate([choosing_with, choosing_without]))
    promising = _bounds(choosing_with, choosing_without, candidates, delta, confidence)
    threshold = candidates[[int(np.argmax(promising))]]
    return float(_bounds(counting_with, counting_without, threshold, delta, confidence)[0])


def gaussian_lower_bound(
    scores_with: np.ndarray, scores_without: np.ndarray, confidence: float, rng: np.random.Generator
) -> float:
    """How many deviations apart, at least, the worlds of a Gaussian mechanism lie: mu, at least 0.

        mu >= Phi^-1(1 - FPR_u) - Phi^-1(FNR_u)

    for a mechanism whose two worlds are no easier to tell apart than N(0, 1) and N(mu, 1). The
    threshold is chosen and the errors are counted as in `many_runs_lower_bound`.

    Args:
        scores_with: `[n]`, of independent runs with the member.
        scores_without: `[k]`, of independent runs without it.
        confidence: that the bound is not above the true mu.
        rng: deals the runs into halves.
    """
    from scipy.stats import norm

    check_confidence(confidence)

    def bounds(with_it: np.ndarray, without: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
        missed, passed = _errors(with_it, without, thresholds)
        fnr = upper_limit(missed, len(with_it), (1 - confidence) / 2)
        fpr = upper_limit(passed, len(without), (1 - confidence) / 2)
        return np.asarray(norm.isf(fpr) - norm.ppf(fnr))

    choosing_with, counting_with = _halves(scores_with, rng)
    choosing_without, counting_without = _halves(scores_without, rng)
    candidates = np.unique(np.concatenate([choosing_with, choosing_without]))
    promising = bounds(choosing_with, choosing_without, candidates)
    threshold = candidates[[int(np.argmax(promising))]]
    return max(0.0, float(bounds(counting_with, counting_without, threshold)[0]))


def _halves(scores: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    shuffled, half = rng.permutation(scores), len(scores) // 2
    return shuffled[:half], shuffled[half:]


def _bounds(
    scores_with: np.ndarray,
    scores_without: np.ndarray,
    thresholds: np.ndarray,
    delta: float,
    confidence: float,
) -> np.ndarray:
    """What each of the thresholds `[k]` shows: `[k]`."""
    missed, passed = _errors(scores_with, scores_without, thresholds)
    sizes = len(scores_with), len(scores_without)
    return epsilon_of_errors(missed, sizes[0], passed, sizes[1], delta, confidence)


def _errors(
    scores_with: np.ndarray, scores_without: np.ndarray, thresholds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(runs with the member below each of the thresholds `[k]`, runs without it from there on)."""
    missed = np.searchsorted(np.sort(scores_with), thresholds)
    passed = len(scores_without) - np.searchsorted(np.sort(scores_without), thresholds)
    return missed, passed
