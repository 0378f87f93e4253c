"""What scores of membership are worth: rates, intervals, and what chance would give."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from fedexp.core.findings import Figure
from fedexp.leakage.membership.roc import RATES, Roc, auc_interval, middle_of, null_intervals

LEAST_OF_CLASS = 5  # members, and non-members: fewer say nothing of a class
BY_CLASS = ", by class"
"""Stands behind the subject of figures whose targets are classes."""


@final
@dataclass(frozen=True)
class Judged:
    """What scores are worth.

    Attributes:
        figures: metric -> value, the null interval as `<metric>_null_low` and `_null_high`; of the
            AUC and the rates at low FPR also their own, as `<metric>_low` and `_high`.
        roc: all rates.
        members: scores `[m]`.
        non_members: scores `[n]`.
    """

    figures: Mapping[str, float]
    roc: Roc
    members: np.ndarray
    non_members: np.ndarray

    @classmethod
    def of(
        cls,
        scores: np.ndarray,
        is_member: np.ndarray,
        permutations: int,
        rng: np.random.Generator,
        chance: Callable[[np.random.Generator], Roc] | None = None,
        examples: np.ndarray | None = None,
    ) -> Judged:
        """Of scores `[n]`, larger for "member", against the truth `[n]` bool.

        Args:
            scores: `[n]`.
            is_member: `[n]` bool.
            permutations: draws behind the null interval.
            rng: draws them.
            chance: draws what comes out where there is nothing to be told; None: labels shuffled.
            examples: `[n]` which example each score is of; None: each of its own.
        """
        members, non_members = scores[is_member], scores[~is_member]
        roc = Roc.of(members, non_members)
        figures = dict(roc.figures())
        if chance is None:
            nulls = null_intervals(members, non_members, permutations, rng)
        else:
            nulls = middle_of([chance(rng).figures() for _ in range(permutations)])
        for metric, (low, high) in nulls.items():
            figures |= {f"{metric}_null_low": low, f"{metric}_null_high": high}
        for metric, rate in RATES.items():
            interval = roc.tpr_interval(rate)
            figures |= {f"{metric}_low": interval.low, f"{metric}_high": interval.high}
        low, high = auc_interval(members, non_members, _members_first(examples, is_member))
        figures |= {"auc_low": low, "auc_high": high}
        return cls(figures, roc, members, non_members)

    def rows(self, subject: str, round: int) -> list[Figure]:
        """The figures as a study's rows."""
        return [Figure(subject, round, 0, metric, value) for metric, value in self.figures.items()]

    def headline(self, accuracies: Mapping[str, float]) -> dict[str, float]:
        """The figures, the accuracies and the sizes."""
        sizes = {"n_members": len(self.members), "n_non_members": len(self.non_members)}
        return {**self.figures, **accuracies, **sizes}

    def arrays(self) -> dict[str, np.ndarray]:
        """What a ROC and a histogram of the scores are drawn from."""
        return {
            "fpr": self.roc.fpr,
            "tpr": self.roc.tpr,
            "scores_members": self.members,
            "scores_non_members": self.non_members,
        }

    def conclusions(self, subject: str) -> list[str]:
        """A sentence a metric, from the figures."""
        known = self.figures
        auc, low, high = known["auc"], known["auc_null_low"], known["auc_null_high"]
        interval = f"the null interval {low:.3f} to {high:.3f}"
        if auc > high:
            verdict = f"above {interval}"
        elif auc < low:
            verdict = f"below {interval}: the two sides differ in something else than membership"
        else:
            verdict = f"inside {interval}: not told from guessing"
        own = f" [{known['auc_low']:.3f}, {known['auc_high']:.3f}]"
        sentences = [f"AUC {auc:.3f}{own}, {verdict}", *map(self._at_low_fpr, RATES)]
        return [f"{subject[0].upper()}{subject[1:]}: {sentence}." for sentence in sentences]

    def _at_low_fpr(self, metric: str) -> str:
        rate, value = RATES[metric], self.figures[metric]
        name, n = f"TPR at {100 * rate:g} % FPR", len(self.non_members)
        if math.isnan(value):
            return f"{name} is not measurable: it takes {1 / rate:,.0f} non-members, not {n:,}"
        high = self.figures[f"{metric}_null_high"]
        low, up = (self.figures[f"{metric}{end}"] for end in ("_low", "_high"))
        verdict = "above" if value > high else "inside"
        return (
            f"{name} {100 * value:.2f} % [{100 * low:.2f}, {100 * up:.2f}], "
            f"{value / rate:.1f} times chance, {verdict} the null interval, which ends at "
            f"{100 * high:.2f} %; false alarms behind it: at most "
            f"{math.floor(rate * n + 1e-9)} of {n:,}"
        )


def class_figures(
    subject: str,
    round: int,
    scores: np.ndarray,
    is_member: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    examples: np.ndarray | None = None,
) -> tuple[list[Figure], list[str]]:
    """The figures of every class that has a few of both kinds, against its own kind; a sentence.

    Their mean is the class-balanced figure: a class counts as much as another, however rare it is.

    Args:
        subject: whose scores.
        round: of the model.
        scores: `[n]`, larger for "member".
        is_member: `[n]` bool.
        labels: `[n]` classes.
        names: of the classes.
        examples: `[n]` which example each score is of; None: each of its own.
    """
    rows, aucs = [], {}
    examples = np.arange(len(scores)) if examples is None else examples
    for c in np.unique(labels).tolist():
        sides = is_member & (labels == c), ~is_member & (labels == c)
        if min(len(np.unique(examples[side])) for side in sides) < LEAST_OF_CLASS:
            continue
        inside, outside = (scores[side] for side in sides)
        roc = Roc.of(inside, outside)
        aucs[names[c]] = roc.auc
        low, high = auc_interval(inside, outside, np.concatenate([examples[s] for s in sides]))
        values = {"auc": roc.auc, "auc_low": low, "auc_high": high}
        values |= {metric: roc.tpr_at(rate) for metric, rate in RATES.items()}
        rows += [Figure(subject + BY_CLASS, round, c, name, v) for name, v in values.items()]
    if len(aucs) < 2:
        return rows, []
    there = len(np.unique(labels))
    which = "" if len(aucs) == there else f"{len(aucs)} of {there} "
    some = f" with {LEAST_OF_CLASS} of either side or more" if which else ""
    least, most = min(aucs, key=aucs.__getitem__), max(aucs, key=aucs.__getitem__)
    return rows, [
        f"{subject[0].upper()}{subject[1:]}: the mean AUC over the {which}classes{some} is "
        f"{np.mean(list(aucs.values())):.3f}, from {aucs[least]:.3f} ({least}) to "
        f"{aucs[most]:.3f} ({most})."
    ]


def shuffled_within(
    classes: np.ndarray, scores: np.ndarray, is_member: np.ndarray
) -> Callable[[np.random.Generator], Roc]:
    """Draws the curve of labels shuffled among examples of one class, of whom as many stay members.

    Where the two sides have other classes than each other, a model that never saw either tells them
    apart by what is easy for it; that is no membership.

    Args:
        classes: `[n]`.
        scores: `[n]`.
        is_member: `[n]` bool.
    """
    by_class = np.argsort(classes, kind="stable")
    sides = is_member[by_class]

    def drawn(rng: np.random.Generator) -> Roc:
        inside = np.empty_like(is_member)
        inside[np.lexsort((rng.random(len(classes)), classes))] = sides
        return Roc.of(scores[inside], scores[~inside])

    return drawn


def _members_first(values: np.ndarray | None, is_member: np.ndarray) -> np.ndarray | None:
    return None if values is None else np.concatenate([values[is_member], values[~is_member]])
