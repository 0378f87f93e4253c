"""From answers to figures: every site's own, what it gains, and what the others lose without it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from fedexp.core.protocols import Task
from fedexp.verdict.answers import Answers, Logits, Site
from fedexp.verdict.intervals import Interval, difference, resampled, share
from fedexp.verdict.metrics import Answered
from fedexp.verdict.operating_point import HALF, OperatingPoint

Figures = Mapping[str, Interval]
OF_BOTH = ("balanced_accuracy", "macro_f1", "auc", "pr_auc")
"""The metrics in which the ill count as much as the healthy, however few either are."""


def answered(
    task: Task, logits: np.ndarray, truth: np.ndarray, threshold: float, grades: bool
) -> Answered:
    """Logits `[n, classes]` as probabilities, beside the truth."""
    probabilities = task.probabilities(torch.from_numpy(logits).double()).numpy()
    return Answered(truth, probabilities, threshold, grades)


def measured(answers: Answered, of_whom: np.ndarray, rng: np.random.Generator | None) -> Figures:
    """A model's metrics on one site's patients, with their intervals; empty without any patients.

    Without an `rng`, which resamples patients, the accuracy alone.
    """
    if not len(answers):
        return {}
    accuracy = {"accuracy": share(answers.right, of_whom)}
    if rng is None:
        return accuracy
    figures = resampled(answers.measure, of_whom, rng)
    if _lone(answers, of_whom):
        nothing = float("nan")
        figures |= {name: Interval(figures[name].value, nothing, nothing) for name in OF_BOTH}
    return {**figures, **_shares(answers, of_whom), **accuracy}


def _lone(answers: Answered, of_whom: np.ndarray) -> bool:
    """Whether all who are ill, or all who are healthy, are one patient: resamples draw no other."""
    truth = answers.columns[0]
    if truth.shape[1] != 1:
        return False
    ill = truth[:, 0]
    return 1 in (len(np.unique(of_whom[ill])), len(np.unique(of_whom[~ill])))


def _shares(answers: Answered, of_whom: np.ndarray) -> Figures:
    """Those of the metrics that are shares of some of the patients, where there is one illness."""
    truth, _, decided = answers.columns
    if truth.shape[1] != 1:
        return {}
    ill, found = truth[:, 0], decided[:, 0]
    among = {
        "sensitivity": (found, ill),
        "specificity": (~found, ~ill),
        "precision": (ill, found),
    }
    return {
        name: share(right[some].astype(np.float64), of_whom[some])
        for name, (right, some) in among.items()
        if some.any()
    }


def of_sites(
    task: Task,
    sites: Sequence[Site],
    answers: Answers,
    point: OperatingPoint,
    grades: bool,
    shared: bool,
    streams: Callable[[int], np.random.Generator | None],
) -> list[tuple[Answered, Figures]]:
    """What each site's model (one for all, if `shared`) answered in test, and its figures.

    `streams` gives each site's for resampling, or None where its accuracy is enough.

    The threshold is chosen on validation: everybody's where the model is shared, a site's own where
    it has a model of its own.
    """
    of_all = _joined(answers.validation) if shared else None
    truths = np.concatenate([site.patients["validation"].truth for site in sites])
    common = None if of_all is None else _threshold(task, of_all, truths, point)
    found = []
    for k, site in enumerate(sites):
        own = answers.validation[k]
        threshold = (
            _threshold(task, own, site.patients["validation"].truth, point)
            if common is None
            else common
        )
        there = site.patients["test"]
        given = answered(task, answers.test[k], there.truth, threshold, grades)
        found.append((given, measured(given, there.of_whom, streams(k))))
    return found


def _joined(logits: Logits) -> np.ndarray:
    return np.concatenate(logits)


def _threshold(task: Task, logits: np.ndarray, truth: np.ndarray, point: OperatingPoint) -> float:
    if truth.ndim != 1 or logits.shape[1] != 2 or not len(truth):
        return HALF
    ill = task.probabilities(torch.from_numpy(logits).double()).numpy()[:, 1]
    return point.threshold(truth, ill)


def gained(ours: Answered, theirs: Answered, of_whom: np.ndarray) -> Interval:
    """How many more of the same patients are answered rightly."""
    return difference(ours.right, theirs.right, of_whom)


def over_sites(
    ours: Sequence[Answered], theirs: Sequence[Answered], sites: Sequence[Site], left_out: int
) -> Interval:
    """The same over the patients of all sites but one, together."""
    others = [k for k in range(len(sites)) if k != left_out and len(ours[k])]
    if not others:
        return Interval(math.nan, math.nan, math.nan)
    people, start = [], 0
    for k in others:  # patients of two sites are two people
        whom = np.unique(sites[k].patients["test"].of_whom, return_inverse=True)[1]
        people.append(whom + start)
        start += int(whom.max()) + 1
    return difference(
        np.concatenate([ours[k].right for k in others]),
        np.concatenate([theirs[k].right for k in others]),
        np.concatenate(people),
    )


def plainly(interval: Interval) -> list[float | None]:
    """[value, low, high], as JSON can say it."""
    return [None if math.isnan(number) else round(float(number), 6) for number in interval]


def flat(figures: Figures) -> dict[str, float | None]:
    """`NAME`, `NAME_low` and `NAME_high` for every figure, as summaries have them."""
    found: dict[str, float | None] = {}
    for name, interval in figures.items():
        value, low, high = plainly(interval)
        found |= {name: value, f"{name}_low": low, f"{name}_high": high}
    return found


def as_document(figures: Figures) -> dict[str, Any]:
    """Every figure as [value, low, high]."""
    return {name: plainly(interval) for name, interval in figures.items()}
