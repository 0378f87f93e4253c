"""Draws what the last model's probabilities are worth: ROC, precision and recall, calibration.

Of the bins in thresholds.csv (`fedexp.core.thresholds`). Where there are more classes than can be
told apart, the mean of their curves, the best and the worst are named and the others are grey.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedexp.core.thresholds import ANSWER, Bin
from fedexp.core.wilson import wilson
from fedexp.reporting.figures import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    VERMILLION,
    all_short,
    legend_below,
    new_figure,
    tidy,
)
from fedexp.reporting.glyphs import legible
from fedexp.reporting.results import Run

_LOOKS = (
    (BLUE, "-"),
    (VERMILLION, "--"),
    (GREEN, "-."),
    (PURPLE, ":"),
    (ORANGE, (0, (5, 1, 1, 1))),
)
_POINTS = 10  # of the reliability diagram
_GRID = np.linspace(0, 1, 201)  # where curves of several classes are averaged


@final
class Curves(NamedTuple):
    """Of one class: at each threshold, from the highest down, how many are right above it."""

    name: str
    false: np.ndarray  # [t + 1] share of the negatives above, from 0 to 1
    true: np.ndarray  # [t + 1] share of the positives above: the recall
    precision: np.ndarray  # [t] share of positives above, from the first threshold on

    @property
    def area(self) -> float:
        """The AUC; within a bin positives and negatives count as ties."""
        return float(np.trapezoid(self.true, self.false))

    @property
    def unsure(self) -> float:
        """By how much the AUC may be more or less: the order within a bin is not written down."""
        return float((np.diff(self.true) * np.diff(self.false)).sum() / 2)


def curves_figure(run: Run) -> Figure | None:
    """Three panels of the shared model on test; None for a run that has no thresholds.csv."""
    curves = [curves_of(name, bins) for name, bins in _named(run) if _both_kinds_are_in(bins)]
    if not curves:
        return None
    title = "What the model's probabilities are worth: test examples, after the last round"
    figure = new_figure(13, 4.4, title, run.description)
    roc, recall, reliability = figure.subplots(1, 3)
    best_first = sorted(curves, key=lambda one: -one.area)
    named = curves if len(curves) <= len(_LOOKS) else [best_first[0], best_first[-1]]
    for one in best_first if len(named) < len(curves) else ():
        roc.plot(one.false, one.true, color="0.8", linewidth=1)
        recall.plot(one.true[1:], one.precision, color="0.8", linewidth=1)
    for one, (colour, line) in zip(named, _LOOKS, strict=False):
        look: dict[str, Any] = {"color": colour, "linestyle": line, "linewidth": 1.9}
        roc.plot(one.false, one.true, **look, label=f"{one.name} ({_auc([one])})")
        recall.plot(one.true[1:], one.precision, **look)
    if len(named) < len(curves):
        _mean_of(curves, roc, recall)
    roc.plot([0, 1], [0, 1], color=GREY, linestyle=(0, (1, 2)), label="no better than guessing")
    _frame(
        roc, "ROC", "False positives (share of the negatives)", "Recall (share of the positives)"
    )
    _frame(recall, "Precision and recall", "Recall", "Precision")
    _reliability(reliability, curves[0].name if len(curves) == 1 else "a class", run.thresholds)
    legend_below(figure, roc)
    return figure


def curves_of(name: str, bins: Sequence[Bin]) -> Curves:
    """The curves of one class, from its bins.

    >>> halves = curves_of("a", [Bin("1", 0.9, 0.95, 3, 1), Bin("1", 0.1, 0.5, 1, 3)])
    >>> halves.true.tolist(), halves.false.tolist(), halves.precision.tolist(), halves.area
    ([0.0, 0.75, 1.0], [0.0, 0.25, 1.0], [0.75, 0.5], 0.75)
    """
    true = np.cumsum([0, *(b.positives for b in bins)])
    false = np.cumsum([0, *(b.negatives for b in bins)])
    above = true[1:] + false[1:]
    return Curves(name, false / max(false[-1], 1), true / max(true[-1], 1), true[1:] / above)


def calibration(bins: Sequence[Bin]) -> np.ndarray:
    """`[points, 3]`: mean probability, share of positives and count of about equally many examples.

    >>> calibration([Bin("1", 0.9, 0.9, 5, 0), Bin("1", 0.1, 0.2, 1, 4)]).tolist()
    [[0.9, 1.0, 5.0], [0.2, 0.2, 5.0]]
    """
    ordered = sorted(bins, key=lambda one: -one.mean)
    positives, count, mean = np.array(
        [(b.positives, b.positives + b.negatives, b.mean) for b in ordered]
    ).T
    point = np.ceil(_POINTS * count.cumsum() / count.sum()).astype(np.int64)  # that a bin is in
    starts = np.flatnonzero(np.diff(point, prepend=0))
    hits, of, sums = (np.add.reduceat(x, starts) for x in (positives, count, mean * count))
    return np.stack([sums / of, hits / of, of], axis=1)


def _reliability(axes: Axes, what: str, thresholds: Mapping[str, Sequence[Bin]]) -> None:
    """How often what is said with a probability is so, with 95 % intervals (Wilson, 1927)."""
    answers = thresholds.get(ANSWER)
    bins = answers or [b for of in thresholds.values() for b in of]
    mean, share, count = calibration(bins).T
    low, high = wilson(share, count)
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=(0, (1, 2)))
    axes.errorbar(
        mean,
        share,
        yerr=[share - low, high - share],
        color=BLUE,
        marker="o",
        markersize=5,
        linewidth=1.6,
        elinewidth=1,
        capsize=2.5,
    )
    error = float((np.abs(mean - share) * count).sum() / count.sum())
    of = f"Probability of {'the class that is answered' if answers else what}"
    _frame(axes, f"Calibration (error {error:.3f})", of, "How often it is so (95 % interval)")


def _auc(curves: Sequence[Curves]) -> str:
    """The mean AUC, and how far bins leave it open.

    >>> _auc([curves_of("a", [Bin("1", 0.9, 0.95, 1, 4), Bin("1", 0.1, 0.2, 0, 5)])])
    'AUC 0.778 ± 0.222'
    >>> _auc([curves_of("a", [Bin("1", 0.9, 0.95, 5, 0), Bin("1", 0.1, 0.2, 0, 5)])])
    'AUC 1.000'
    """
    area = np.mean([one.area for one in curves])
    unsure = np.mean([one.unsure for one in curves])
    return f"AUC {area:.3f}" + (f" ± {unsure:.3f}" if unsure >= 0.0005 else "")


def _mean_of(curves: Sequence[Curves], roc: Axes, recall: Axes) -> None:
    """The mean over the classes: of recalls at one share of false positives, and of precisions."""
    rates = np.mean([np.interp(_GRID, one.false, one.true) for one in curves], axis=0)
    label = f"mean of {len(curves)} classes ({_auc(curves)})"
    roc.plot([0, *_GRID], [0, *rates], color=BLACK, linewidth=2.2, label=label)
    precisions = [np.interp(_GRID, one.true[1:], one.precision) for one in curves]
    recall.plot(_GRID, np.mean(precisions, axis=0), color=BLACK, linewidth=2.2)


def _frame(axes: Axes, title: str, x: str, y: str) -> None:
    tidy(axes, grid="both")
    axes.set_title(title, loc="left", fontsize=10.5)
    axes.set(xlabel=x, ylabel=y, xlim=(-0.02, 1.02), ylim=(-0.02, 1.03))


def _named(run: Run) -> list[tuple[str, list[Bin]]]:
    """The name of every class, and its bins; names may be alike."""
    classes = {of: bins for of, bins in run.thresholds.items() if of != ANSWER}
    known = legible([str(name) for name in (run.partition or {}).get("class_names") or []])
    names = all_short([known[int(of)] if int(of) < len(known) else of for of in classes])
    return [(f"class {name}", bins) for name, bins in zip(names, classes.values(), strict=True)]


def _both_kinds_are_in(bins: Sequence[Bin]) -> bool:
    return any(b.positives for b in bins) and any(b.negatives for b in bins)
