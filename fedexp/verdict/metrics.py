"""The metrics that medicine uses, of weighted patients: a resample is a row of weights.

With truths t, probabilities p and decisions d `[n, K]`, a column for each class against the rest
(one column, that of class 1, where there are two), and all sums weighted:

    sensitivity        sum t d / sum t                  of the ill, how many are found
    specificity        sum (1-t)(1-d) / sum (1-t)       of the healthy, how many are left alone
    precision          sum t d / sum d                  of those found, how many are ill
    AUC                P(p of an ill one > p of a healthy one), ties half
    PR-AUC             average precision: sum over thresholds of (recall gained) * precision
    Brier score        mean of (p - t)^2, summed over columns where there are three or more
    calibration error  sum over 15 bins of p of (share in the bin) * |mean of t - mean of p|

each averaged over the columns in which it is defined. From the answer (the likeliest class,
whatever the operating point): accuracy, balanced accuracy (mean recall of the classes), macro F1,
and for grades Cohen's kappa with quadratic weights. Calibration of three or more classes is that of
the likeliest one. NaN where a figure is not defined.

scikit-learn has all of these, and the tests hold them against it; but it takes weights one row at a
time, and a thousand resamples of five sites would take minutes.

Sources: Brier, Monthly Weather Review 1950; Cohen, Psychological Bulletin 1968; Guo et al., "On
Calibration of Modern Neural Networks", ICML 2017, equation 5.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np

BINS = 15
METRICS = (
    "accuracy",
    "balanced_accuracy",
    "macro_f1",
    "sensitivity",
    "specificity",
    "precision",
    "auc",
    "pr_auc",
    "brier",
    "calibration_error",
)
GRADES = "quadratic_kappa"  # one more, where classes are grades in order

Weighted = np.ndarray  # [B], one value a row of weights


@final
@dataclass(frozen=True)
class Answered:
    """What a model answered about patients whose truth is known.

    Args:
        truth: `[n]` int64 classes, or `[n, labels]` of 0 and 1.
        probabilities: `[n, classes]`, or `[n, labels]`.
        threshold: a decision for class 1 needs a probability of this; of two classes, or labels.
        grades: whether classes are grades in order.
    """

    truth: np.ndarray
    probabilities: np.ndarray
    threshold: float = 0.5
    grades: bool = False

    def __len__(self) -> int:
        return len(self.truth)

    @property
    def one_class(self) -> bool:
        """Whether every example has exactly one class."""
        return self.truth.ndim == 1

    @property
    def classes(self) -> int:
        """How many classes or labels there are."""
        return int(self.probabilities.shape[1])

    @cached_property
    def answer(self) -> np.ndarray:
        """The likeliest class `[n]`, or the labels above one half `[n, labels]`."""
        if self.one_class:
            return np.asarray(np.nan_to_num(self.probabilities, nan=-1.0).argmax(axis=1))
        return np.asarray((self.probabilities > 0.5).astype(np.int64))

    @cached_property
    def right(self) -> np.ndarray:
        """`[n]` in [0, 1]: whether the answer is right, or which share of the labels is."""
        same = (self.answer == self.truth).astype(np.float64)
        return same if self.one_class else np.asarray(same.mean(axis=1))

    @cached_property
    def columns(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Truths, probabilities and decisions `[n, K]`, one class against the rest."""
        if not self.one_class:
            decided = self.probabilities >= self.threshold
            return self.truth.astype(bool), self.probabilities, decided
        if self.classes == 2:
            ill = self.probabilities[:, 1:]
            return self.truth[:, None] == 1, ill, ill >= self.threshold
        classes = np.arange(self.classes)
        return self.truth[:, None] == classes, self.probabilities, self.answer[:, None] == classes

    def metrics(self) -> tuple[str, ...]:
        """The names of what `measure` measures."""
        return (*METRICS, GRADES) if self.grades and self.one_class else METRICS

    def measure(self, weights: np.ndarray) -> dict[str, Weighted]:
        """All metrics, each `[B]`, for weights `[B, n]`, none negative.

        >>> answered = Answered(np.array([0, 1, 1]), np.array([[0.9, 0.1], [0.6, 0.4], [0, 1]]))
        >>> measured = answered.measure(np.ones((1, 3)))
        >>> round(float(measured["accuracy"][0]), 3), measured["sensitivity"].tolist()
        (0.667, [0.5])
        """
        truth, probabilities, decided = self.columns
        total = weights.sum(axis=1)
        found = weights @ (truth & decided)
        figures = {
            "accuracy": _over(weights @ self.right, total),
            **self._of_answers(weights),
            "sensitivity": _mean(_over(found, weights @ truth)),
            "specificity": _mean(_over(weights @ (~truth & ~decided), weights @ ~truth)),
            "precision": _mean(self._precisions(found, weights @ decided, weights @ truth)),
            **_of_rankings(weights, truth, probabilities),
            "brier": _over(weights @ self._squares(), total),
            "calibration_error": self._calibration(weights),
        }
        if self.grades and self.one_class:
            figures[GRADES] = _quadratic_kappa(self._confusion(weights))
        return {name: figures[name] for name in self.metrics()}

    def _precisions(self, right: np.ndarray, found: np.ndarray, ill: np.ndarray) -> np.ndarray:
        """Of each column `[B, K]`, as scikit-learn has it: where nobody is found, none is ill: 0.

        But of several classes one that no patient has, and that nobody is given, is not counted.
        """
        several = self.one_class and self.classes > 2
        precisions = _over(right, found, otherwise=0.0)
        return np.where((found + ill > 0) | (not several), precisions, np.nan)

    def _confusion(self, weights: np.ndarray) -> np.ndarray:
        """`[B, classes, classes]`: truth by answer."""
        cell = self.truth * self.classes + self.answer
        table = weights @ (cell[:, None] == np.arange(self.classes**2))
        return np.asarray(table.reshape(len(weights), self.classes, self.classes))

    def _of_answers(self, weights: np.ndarray) -> dict[str, Weighted]:
        if self.one_class:
            confusion = self._confusion(weights)
            right = np.diagonal(confusion, axis1=1, axis2=2)
            of_truth, of_answer = confusion.sum(axis=2), confusion.sum(axis=1)
            f1 = _over(2 * right, of_truth + of_answer)
            return {
                "balanced_accuracy": _mean(_over(right, of_truth)),
                "macro_f1": _mean(f1),
            }
        truth, answer = self.truth.astype(bool), self.answer.astype(bool)
        both, neither = weights @ (truth & answer), weights @ (~truth & ~answer)
        present, absent = weights @ truth, weights @ ~truth
        recalls = np.stack([_over(both, present), _over(neither, absent)])
        return {
            "balanced_accuracy": _mean(_nanmean(recalls, axis=0)),
            "macro_f1": _mean(_over(2 * both, present + weights @ answer, otherwise=0.0)),
        }

    def _squares(self) -> np.ndarray:
        truth, probabilities, _ = self.columns
        squares = (probabilities - truth) ** 2
        several = self.one_class and self.classes > 2
        return np.asarray(squares.sum(axis=1) if several else squares.mean(axis=1))

    def _calibration(self, weights: np.ndarray) -> Weighted:
        if self.one_class and self.classes > 2:
            sure = self.probabilities.max(axis=1)
            return _calibration_error(weights, sure, self.right)
        truth, probabilities, _ = self.columns
        columns = zip(probabilities.T, truth.T, strict=True)
        return _mean(np.stack([_calibration_error(weights, p, t) for p, t in columns], axis=1))


def _over(part: np.ndarray, whole: np.ndarray, otherwise: float = np.nan) -> np.ndarray:
    """Quotients, and `otherwise` where the whole is 0."""
    safe = np.where(whole > 0, whole, 1.0)
    return np.asarray(np.where(whole > 0, part / safe, otherwise))


def _mean(columns: np.ndarray) -> Weighted:
    """Over the columns in which a figure is defined; NaN where it is in none."""
    return _nanmean(columns, axis=1)


def _nanmean(values: np.ndarray, axis: int) -> np.ndarray:
    defined = ~np.isnan(values)
    return _over(np.where(defined, values, 0.0).sum(axis=axis), defined.sum(axis=axis))


def _of_rankings(
    weights: np.ndarray, truth: np.ndarray, probabilities: np.ndarray
) -> dict[str, Weighted]:
    """AUC and average precision, from one sorting of each column."""
    columns = zip(truth.T, probabilities.T, strict=True)
    both = [_ranked(weights, t, p) for t, p in columns]
    areas, precisions = (np.stack(list(figures), axis=1) for figures in zip(*both, strict=True))
    return {"auc": _mean(areas), "pr_auc": _mean(precisions)}


def _ranked(weights: np.ndarray, truth: np.ndarray, score: np.ndarray) -> tuple[Weighted, Weighted]:
    if not np.isfinite(score).all():
        unknown = np.full(len(weights), np.nan)
        return unknown, unknown
    order = np.argsort(-score, kind="stable")
    ends = np.flatnonzero(np.diff(score[order], append=np.nan))  # of each run of equal scores
    ill = np.cumsum(np.where(truth[order], weights[:, order], 0.0), axis=1)[:, ends]
    healthy = np.cumsum(np.where(truth[order], 0.0, weights[:, order]), axis=1)[:, ends]
    n_ill, n_healthy = ill[:, -1], healthy[:, -1]
    gained = np.diff(ill, axis=1, prepend=0.0)
    ahead = n_healthy[:, None] - healthy + np.diff(healthy, axis=1, prepend=0.0) / 2
    area = _over((gained * ahead).sum(axis=1), n_ill * n_healthy)
    precision = (gained * _over(ill, ill + healthy, otherwise=0.0)).sum(axis=1)
    return area, _over(precision, n_ill)


def _calibration_error(weights: np.ndarray, sure: np.ndarray, happened: np.ndarray) -> Weighted:
    if not np.isfinite(sure).all():
        return np.full(len(weights), np.nan)
    bins = np.clip(np.ceil(sure * BINS) - 1, 0, BINS - 1)[:, None] == np.arange(BINS)
    gap = weights @ (bins * (happened - sure)[:, None])
    return _over(np.abs(gap).sum(axis=1), weights.sum(axis=1))


def _quadratic_kappa(confusion: np.ndarray) -> Weighted:
    """1 - (observed disagreement) / (that of independent answers), by squared distance."""
    grades = np.arange(confusion.shape[1])
    cost = (grades[:, None] - grades) ** 2
    total = confusion.sum(axis=(1, 2))
    chance = confusion.sum(axis=2)[:, :, None] * confusion.sum(axis=1)[:, None, :]
    observed, expected = (confusion * cost).sum(axis=(1, 2)), (chance * cost).sum(axis=(1, 2))
    return 1 - _over(observed * total, expected)
