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

The interval of an AUC is Wilson's, of as many examples as would be as sure of a share:
AUC (1 - AUC) over DeLong's variance; an example's scores by several models are one (Obuchowski).
Below 30 examples of a kind, and where all of one kind are above all of the other, what is seen of
the variance says little: then as many as the rarer kind has, as none is larger (van Dantzig).

Sources: Carlini, Chien, Nasr, Song, Terzis and Tramèr, "Membership Inference Attacks From First
Principles", IEEE S&P 2022, section 3 (why low FPR); Good, "Permutation, Parametric and Bootstrap
Tests of Hypotheses", 3rd edition 2005, chapter 3 (shuffled labels); DeLong, DeLong and
Clarke-Pearson, Biometrics 1988; Obuchowski, "Nonparametric Analysis of Clustered ROC Curve Data",
Biometrics 1997; van Dantzig, "On the Consistency and the Power of Wilcoxon's Two Sample Test",
1951.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np

from fedexp.core.checks import InputError, at_least
from fedexp.core.wilson import wilson
from fedexp.leakage.intervals import Interval

RATES: Mapping[str, float] = {
    "tpr_at_1_percent_fpr": 0.01,
    "tpr_at_0.1_percent_fpr": 0.001,
}
"""Metric -> the false-positive rate at which the true-positive rate is read."""

COVERAGE_PERCENT = 95
FEW = 30  # examples of a side from which on they say themselves how unlike each other they are
LEAST_VARIANCE = 1e-12  # below it, no two sides were in another order anywhere


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
    members: np.ndarray, non_members: np.ndarray, examples: np.ndarray | None = None
) -> tuple[float, float]:
    """The ends between which the attack's own AUC lies with 95 % confidence.

    Args:
        members: scores `[m]`.
        non_members: scores `[n]`.
        examples: `[m + n]` which example each score is of, members first; None: each of its own.

    Raises:
        InputError: as `Roc.of`.
    """
    _joined(members, non_members)
    m, n = len(members), len(non_members)
    of = np.arange(m + n) if examples is None else np.unique(examples, return_inverse=True)[1]
    passed, passing = _share_below(members, non_members), 1 - _share_below(non_members, members)
    auc = float(passed.mean())
    parts = np.bincount(of, np.concatenate([(passed - auc) / m, (passing - auc) / n]))
    variance = float((parts**2).sum()) * len(parts) / max(len(parts) - 1, 1)
    size: float = min(len(np.unique(side)) for side in (of[:m], of[m:]))
    if size >= FEW and variance > LEAST_VARIANCE:
        size = auc * (1 - auc) / variance
    low, high = wilson(np.array(auc), np.array(size))
    return float(low), float(high)


def _share_below(scores: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Of each score `[k]`, the share of the others that it is above; ties count half."""
    sides = [np.searchsorted(np.sort(others), scores, side) for side in ("left", "right")]
    share: np.ndarray = np.mean(sides, axis=0) / len(others)
    return share


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
