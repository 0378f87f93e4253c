"""How well scores tell members from non-members, where it counts, and what chance would give.

    FPR(t) = share of non-members with a score >= t,    TPR(t) = share of members with one
    AUC = chance that a member scores higher than a non-member, ties half
    TPR at x % FPR = the largest TPR(t) of all thresholds t with FPR(t) <= x %
    balanced accuracy = the largest (TPR(t) + 1 - FPR(t)) / 2 of all thresholds

An average hides what an attack does to the few: an AUC of 0.52 goes with members that are named
with near certainty. So the rate of true positives at a low rate of false ones stands beside it.

No point is interpolated: between two thresholds the lower TPR counts, and equal scores are accepted
together or not at all. A rate below 1 / (number of non-members) exists only as 0, so TPR there is
NaN: 0.1 % takes 1,000 non-members, 1 % takes 100.

The null interval holds 95 % of what the same scores give when who is a member is shuffled. Scores
of several runs share no scale; pooled, each is replaced by its run's own false-positive rate.

Sources: Carlini, Chien, Nasr, Song, Terzis and Tramèr, "Membership Inference Attacks From First
Principles", IEEE S&P 2022, section 3 (why low FPR); Good, "Permutation, Parametric and Bootstrap
Tests of Hypotheses", 3rd edition 2005, chapter 3 (shuffled labels).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np

from fedexp.core.checks import InputError, at_least
from fedexp.leakage.intervals import Interval

RATES: Mapping[str, float] = {
    "tpr_at_1_percent_fpr": 0.01,
    "tpr_at_0.1_percent_fpr": 0.001,
}
"""Metric -> the false-positive rate at which the true-positive rate is read."""

COVERAGE_PERCENT = 95
RESAMPLES = 1_000


@final
@dataclass(frozen=True)
class Roc:
    """Every pair of rates that the scores allow, from the strictest threshold to the loosest.

    Attributes:
        false: `[k]` non-members that pass, from 0 to all, not falling.
        true: `[k]` members that pass, from 0 to all, not falling.
    """

    false: np.ndarray
    true: np.ndarray

    @classmethod
    def of(cls, members: np.ndarray, non_members: np.ndarray) -> Roc:
        """Of scores `[m]` and `[n]`, larger for "member".

        Raises:
            InputError: there are none of one kind, or a score is not finite.
        """
        scores = _joined(members, non_members)
        order = np.argsort(-scores, kind="stable")
        return cls._of(_labels(members, non_members)[order], _ends_of_ties(scores[order]))

    @classmethod
    def _of(cls, is_member: np.ndarray, ends: np.ndarray) -> Roc:
        """Of labels in the order of falling scores.

        What `sklearn.metrics.roc_curve` does, without its sorting and checking: shuffled labels ask
        for it a thousand times.
        """
        true = np.concatenate([[0], is_member.cumsum()[ends]])
        false = np.concatenate([[0], ends + 1]) - true
        return cls(false, true)

    @property
    def n_non_members(self) -> int:
        """How many the false-positive rates are shares of."""
        return int(self.false[-1])

    @property
    def n_members(self) -> int:
        """How many the true-positive rates are shares of."""
        return int(self.true[-1])

    @cached_property
    def fpr(self) -> np.ndarray:
        """`[k]` false-positive rates, from 0 to 1."""
        rates: np.ndarray = self.false / self.n_non_members
        return rates

    @cached_property
    def tpr(self) -> np.ndarray:
        """`[k]` true-positive rates, from 0 to 1."""
        rates: np.ndarray = self.true / self.n_members
        return rates

    @property
    def auc(self) -> float:
        """Area under the curve."""
        return float(np.trapezoid(self.tpr, self.fpr))

    @property
    def balanced_accuracy(self) -> float:
        """At the threshold that is best on these very scores, so chance lies above 0.5."""
        return float((self.tpr + 1 - self.fpr).max() / 2)

    def tpr_at(self, fpr: float) -> float:
        """The largest TPR at no more than this FPR; NaN with fewer than 1 / fpr non-members.

        >>> Roc.of(np.array([3.0, 1.0]), np.array([2.0, 0.0])).tpr_at(0.5)
        1.0
        """
        if fpr * self.n_non_members < 1:
            return float("nan")
        return float(self.tpr[self.fpr <= fpr].max())

    def tpr_interval(self, fpr: float) -> Interval:
        """`tpr_at` and the ends between which the attack's own rate lies with 95 % confidence.

        The threshold that has this FPR in truth lies, with half of the doubt, between the ones that
        as many of these non-members pass as the binomial distribution allows; at either end, the
        share of members above it is known with the other half. So a TPR behind two false alarms is
        as unsure as two false alarms are.
        """
        from scipy.stats import beta, binom

        rate, n, m = self.tpr_at(fpr), self.n_non_members, self.n_members
        if math.isnan(rate):
            return Interval(rate, rate, rate)
        tail = (100 - COVERAGE_PERCENT) / 100 / 4
        fewest, most = binom.ppf([tail, 1 - tail], n, fpr)
        # Just before the next false alarm: a threshold may lie anywhere between two scores.
        least = int(self.true[self.false <= fewest - 1].max(initial=0))
        greatest = int(self.true[self.false <= most].max())
        low = float(beta.ppf(tail, least, m - least + 1)) if least else 0.0
        high = float(beta.ppf(1 - tail, greatest + 1, m - greatest)) if greatest < m else 1.0
        return Interval(rate, low, high)

    def figures(self) -> dict[str, float]:
        """All metrics by name."""
        return {
            "auc": self.auc,
            **{metric: self.tpr_at(rate) for metric, rate in RATES.items()},
            "balanced_accuracy": self.balanced_accuracy,
        }


def pooled(runs: Sequence[tuple[np.ndarray, np.ndarray]]) -> Roc:
    """The curve of several runs together, each with thresholds of its own.

    Args:
        runs: of each, the scores of members `[m]` and of non-members `[n]`.

    Raises:
        InputError: as `Roc.of`.
    """
    rates = [(_strictness(m, others), _strictness(others, others)) for m, others in runs]
    members, non_members = (np.concatenate(side) for side in zip(*rates, strict=True))
    return Roc.of(members, non_members)


def _strictness(scores: np.ndarray, non_members: np.ndarray) -> np.ndarray:
    """Minus the false-positive rate at each score's own threshold."""
    below = np.searchsorted(np.sort(non_members), scores, side="left")
    return below / len(non_members) - 1


def null_intervals(
    members: np.ndarray, non_members: np.ndarray, permutations: int, rng: np.random.Generator
) -> dict[str, tuple[float, float]]:
    """Metric -> the interval that holds 95 % of its values when who is a member is shuffled.

    Args:
        members: scores `[m]`.
        non_members: scores `[n]`.
        permutations: how often the labels are shuffled.
        rng: draws the shuffles.

    Raises:
        InputError: as `Roc.of`; or permutations below 40, which have no 2.5 % tail.
    """
    at_least(40, permutations=permutations)
    labels = _labels(members, non_members)
    ends = _ends_of_ties(-np.sort(-_joined(members, non_members)))
    return middle_of(
        [Roc._of(rng.permutation(labels), ends).figures() for _ in range(permutations)]
    )


def middle_of(chance: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, float]]:
    """Metric -> the interval that holds 95 % of its values in figures that chance gave."""
    tail = (100 - COVERAGE_PERCENT) / 2
    intervals = {}
    for metric in chance[0]:
        low, high = np.percentile([values[metric] for values in chance], [tail, 100 - tail])
        intervals[metric] = (float(low), float(high))
    return intervals


def auc_interval(
    members: np.ndarray, non_members: np.ndarray, rng: np.random.Generator
) -> tuple[float, float]:
    """The ends between which 95 % of the AUCs of resamples of both sides lie.

    Args:
        members: scores `[m]`.
        non_members: scores `[n]`.
        rng: draws the resamples, as many of each side as there are, with replacement.

    Raises:
        InputError: as `Roc.of`.
    """
    _joined(members, non_members)
    others = np.sort(non_members)
    below, up_to = (np.searchsorted(others, members, side) for side in ("left", "right"))
    m, n = len(members), len(others)
    aucs = np.empty(RESAMPLES)
    for k in range(RESAMPLES):
        counts = np.bincount(rng.integers(n, size=n), minlength=n)
        passed = np.concatenate([[0], counts.cumsum()])
        wins = passed[below] + passed[up_to]  # twice: a tie is half a win
        aucs[k] = wins[rng.integers(m, size=m)].mean() / (2 * n)
    tail = (100 - COVERAGE_PERCENT) / 2
    low, high = np.percentile(aucs, [tail, 100 - tail])
    return float(low), float(high)


def _joined(members: np.ndarray, non_members: np.ndarray) -> np.ndarray:
    if not len(members) or not len(non_members):
        raise InputError(
            f"a ROC needs members and non-members; there are {len(members)} and {len(non_members)}"
        )
    scores = np.concatenate([members, non_members])
    if not np.isfinite(scores).all():
        unusable = int((~np.isfinite(scores)).sum())
        raise InputError(f"{unusable} of {len(scores)} scores are not finite: a model diverged")
    return scores


def _ends_of_ties(falling: np.ndarray) -> np.ndarray:
    """Where each run of equal scores ends."""
    return np.append(np.flatnonzero(np.diff(falling)), len(falling) - 1)


def _labels(members: np.ndarray, non_members: np.ndarray) -> np.ndarray:
    return np.arange(len(members) + len(non_members)) < len(members)
