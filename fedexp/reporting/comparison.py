"""Draws a sweep: every configuration's accuracy over the rounds, and where each seed ended."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fedexp.reporting.figures import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    SKY_BLUE,
    VERMILLION,
    finite,
    new_figure,
    tidy,
)
from fedexp.reporting.limits import limits_of_interest
from fedexp.reporting.results import Run
from fedexp.reporting.tables import Configuration

MOST_CURVES = 24
"""More configurations than this are drawn without curves, which nobody could tell apart."""
MOST_ROWS = 100
"""More configurations than this are not drawn: the table has them all."""

_COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY_BLUE, BLACK)
_LINES = ("-", "--", ":", "-.")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_LABEL_CHARACTERS = 44  # a line of a label
_ROW = 0.3  # inches for a one-line label


def comparison_figure(groups: Sequence[Configuration]) -> Figure:
    """Curves of up to 24 configurations on the left, the last accuracy of every seed on the right.

    Of more than 100 configurations the first 100 are drawn. The rows on the right name the lines on
    the left. Runs that are not complete are counted, not drawn.
    """
    subtitle = "Test part. " + run_in_common([run for group in groups for run in group.runs])
    if len(groups) > MOST_ROWS:
        subtitle += f" The first {MOST_ROWS} of {len(groups)} configurations: table.md has all."
        groups = groups[:MOST_ROWS]
    labels = [_label(group) for group in groups]
    lines = sum(1 + label.count("\n") for label in labels)
    height = max(3.6, _ROW * lines + 1.0)
    if len(groups) > MOST_CURVES:
        figure = new_figure(8.5, height, "Accuracy after the last round", subtitle)
        _dots(tidy(figure.subplots(), grid="x"), groups, labels, keys=False)
        return figure
    figure = new_figure(12.5, height, "Accuracy over the rounds and after the last", subtitle)
    left, right = figure.subplots(1, 2, width_ratios=[1.35, 1])
    _curves(tidy(left, grid="both"), groups)
    _dots(tidy(right, grid="x"), groups, labels, keys=True)
    return figure


def _curves(axes: Axes, groups: Sequence[Configuration]) -> None:
    """The mean over the seeds, and a band: one standard deviation, or min to max below 3 seeds.

    Of more curves than there are colours nobody could say whose a band is: the dots show the seeds.
    """
    spreads = set()
    drawn = []
    for index, group in enumerate(groups):
        curves = _by_seed(group)
        if curves.empty:
            continue
        mean, rounds = curves.mean(axis=1), curves.index.to_numpy()
        drawn.append(mean)
        colour, line, marker = style_of(index)
        axes.plot(
            rounds,
            mean,
            color=colour,
            linestyle=line,
            marker=marker,
            markersize=4.5,
            markevery=max(1, len(rounds) // 12),
            linewidth=1.6,
        )
        n = curves.shape[1]
        if n == 1 or len(groups) > len(_COLOURS):
            continue
        if n == 2:
            low, high = curves.min(axis=1), curves.max(axis=1)
            spreads.add("lowest to highest seed")
        else:
            deviation = curves.std(axis=1)
            low, high = mean - deviation, mean + deviation
            spreads.add("± 1 standard deviation")
        axes.fill_between(rounds, low, high, color=colour, alpha=0.15, linewidth=0)
    if drawn:
        axes.set_ylim(*limits_of_interest(drawn))
    axes.set_xlabel("Round")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_ylabel("Test accuracy (fraction of examples right)")
    title = "Mean over the seeds"
    if spreads:
        title += f"; shaded: {' or '.join(sorted(spreads))}"
    axes.set_title(title, loc="left", fontsize=10)


def _dots(axes: Axes, groups: Sequence[Configuration], labels: Sequence[str], keys: bool) -> None:
    """A row a configuration: a ring for every seed, a bar at their mean."""
    beside = axes.get_yaxis_transform()
    for row, group in enumerate(groups):
        colour, line, marker = style_of(row) if keys else (BLUE, "-", "o")
        if keys:
            # The line as it looks on the left, between its name and its dots.
            axes.plot(
                [-0.115, -0.065, -0.015],
                [row] * 3,
                transform=beside,
                clip_on=False,
                color=colour,
                linestyle=line,
                marker=marker,
                markersize=4.5,
                markevery=[1],
                linewidth=1.6,
            )
        values = _last_by_seed(group)
        if len(values):
            axes.plot(
                values,
                [row] * len(values),
                "o",
                markerfacecolor="none",
                markeredgecolor=colour,
                markersize=7,
            )
        if len(values) > 1:
            axes.plot(np.mean(values), row, "|", color=BLACK, markersize=13, markeredgewidth=1.6)
    axes.set_yticks(range(len(groups)), labels, fontsize=9.5)
    axes.tick_params("y", length=0, pad=44 if keys else 6)
    axes.set_ylim(len(groups) - 0.4, -0.6)
    axes.set_xlabel("Test accuracy (fraction of examples right)")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_title("○ one seed    | mean over the seeds", loc="left", fontsize=10)


def style_of(index: int) -> tuple[str, str, str]:
    """Colour, dashes and marker of a picture's curve by its place."""
    n = len(_COLOURS)
    return _COLOURS[index % n], _LINES[index // n % len(_LINES)], _MARKERS[index % n]


def _by_seed(group: Configuration) -> pd.DataFrame:
    """Test accuracy: a row for each round that all seeds evaluated, a column for each seed."""
    return group.curves_by_seed(lambda run: finite(run.model_curve("test", "accuracy")))


def _last_by_seed(group: Configuration) -> list[float]:
    """Without a seed's figure, NaN in its place: such seeds have no mean, in the table neither."""
    return group.by_seed(lambda run: run.final("test", "accuracy")).tolist()


def _label(group: Configuration) -> str:
    counts = {"failed": group.failed, "unfinished": group.unfinished}
    missing = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    text = f"{group.label} ({missing})" if missing else group.label
    return "\n".join(textwrap.wrap(text, _LABEL_CHARACTERS)).replace("$", r"\$")


def run_in_common(runs: Sequence[Run]) -> str:
    """What all runs share, in a line."""
    descriptions = [
        dict.fromkeys(part for part in run.description.split(", ") if not part.startswith("seed "))
        for run in runs
        if run.config
    ]
    if not descriptions:
        return ""
    shared = [part for part in descriptions[0] if all(part in other for other in descriptions)]
    return f"In all runs: {', '.join(shared)}." if shared else ""
