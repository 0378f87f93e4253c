"""Draws what a detector said: its scores of honest and malicious updates, and its ROC curve."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fedexp.reporting.adversary import detection
from fedexp.reporting.figures import (
    BLACK,
    BLUE,
    GREY,
    SKY_BLUE,
    VERMILLION,
    legend_below,
    new_figure,
    tidy,
)
from fedexp.reporting.results import Run

_LOG_SCALE_FROM = 30.0  # the ratio of the 99th percentile of the scores to their median
_BINS = 50


def detector_scores_figure(run: Run) -> Figure | None:
    """How the scores of honest and of malicious updates lie beside the threshold."""
    found = detection(run)
    if found is None or found.scores["score"].isna().all():
        return None
    figure = new_figure(
        7.5, 4.4, "The detector's scores: honest against malicious updates", run.description
    )
    axes = tidy(figure.subplots(), grid="y")
    scored = found.scores.dropna(subset="score")
    bins = _bins(axes, scored["score"])
    looks = {"honest": (SKY_BLUE, BLUE, ""), "malicious": (VERMILLION, VERMILLION, "//")}
    for kind, (colour, edge, hatch) in looks.items():
        values = scored["score"][scored["malicious"] == (kind == "malicious")]
        if values.empty:
            continue
        counts, _ = np.histogram(values, bins)
        axes.stairs(
            100 * counts / len(values),
            bins,
            fill=True,
            facecolor=(colour, 0.5),
            edgecolor=edge,
            hatch=hatch,
            linewidth=1.3,
            label=f"{kind} ({len(values):,} updates)",
        )
    _threshold(axes, found.thresholds)
    axes.set_ylabel("Share of the updates of a kind (%)")
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    legend_below(figure, axes)
    return figure


def detector_roc_figure(run: Run) -> Figure | None:
    """Malicious updates caught against honest ones flagged, for every threshold there could be."""
    found = detection(run)
    if found is None or np.isnan(found.auc):
        return None
    false, true = _roc(found.scores.dropna(subset="score"))
    figure = new_figure(
        8.6,
        4.5,
        f"The detector's ROC curve: AUC {found.auc:.3f}, all rounds together",
        run.description,
    )
    whole, few = figure.subplots(1, 2, sharey=True)
    for axes in (whole, few):
        tidy(axes, grid="both")
        axes.plot(false, true, color=BLUE, linewidth=2, label="every threshold")
        at = np.geomspace(1e-9, 1, 200)
        axes.plot(at, at, color=GREY, linestyle="--", linewidth=1, label="guessing")
        axes.plot(
            found.false_alarms / found.honest,
            found.caught / found.malicious,
            "D",
            color=VERMILLION,
            markersize=8,
            clip_on=False,
            label="what was flagged",
            zorder=3,
        )
        axes.set_ylim(-0.02, 1.03)
        axes.set_xlabel("Honest updates flagged (share)")
    whole.set_xlim(-0.02, 1.02)
    whole.set_ylabel("Malicious updates caught (share)")
    # Where a server can afford to be: 0 false alarms stand at the left edge.
    fewest = 1 / found.honest
    few.set_xscale("symlog", linthresh=fewest, linscale=0.4)
    few.set_xlim(0, 1.05)
    powers = [10.0**k for k in range(int(np.ceil(np.log10(fewest))), 1)]
    few.set_xticks([0, *powers], ["0", *(f"{power:g}" for power in powers)])
    few.minorticks_off()
    few.set_title("Few false alarms (log scale)", loc="left", fontsize=10)
    whole.set_title("The whole curve", loc="left", fontsize=10)
    legend_below(figure, whole)
    return figure


def _roc(scored: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Shares of honest and of malicious rows above each threshold, from none to all.

    scikit-learn has it, and takes longer to be imported than the picture to be drawn.
    """
    falling = scored.sort_values("score", ascending=False)
    malicious = falling["malicious"].to_numpy(dtype=bool)
    told_apart = np.append(np.diff(falling["score"].to_numpy()) != 0, True)
    counts = (np.cumsum(kind)[told_apart] for kind in (~malicious, malicious))
    false, true = (np.concatenate([[0.0], count / count[-1]]) for count in counts)
    return false, true


def _bins(axes: Axes, scores: pd.Series[float]) -> np.ndarray:
    """The edges of the bars; evenly on a log scale where few scores dwarf the rest."""
    low, high = float(scores.min()), float(scores.max())
    middle = float(scores.median())
    if low > 0 and middle > 0 and float(scores.quantile(0.99)) > _LOG_SCALE_FROM * middle:
        axes.set_xscale("log")
        axes.set_xlabel("Score (log scale); larger is more suspicious")
        return np.geomspace(low, high * 1.001, _BINS + 1)
    axes.set_xlabel("Score; larger is more suspicious")
    if low == high:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, _BINS + 1)


def _threshold(axes: Axes, thresholds: pd.Series[float]) -> None:
    if thresholds.empty:
        return
    low, high = float(thresholds.min()), float(thresholds.max())
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        label = f"threshold ({low:.3g})"
    else:
        axes.axvspan(low, high, color=BLACK, alpha=0.12, linewidth=0)
        label = f"median threshold; shaded: all rounds' ({low:.3g} to {high:.3g})"
    axes.axvline(
        float(thresholds.median()), color=BLACK, linestyle=(0, (6, 4)), linewidth=1.2, label=label
    )
