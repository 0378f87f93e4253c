"""Draws privacy: epsilon over the rounds of a run, and the accuracy that each epsilon left."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fedexp.core.text import rounded_up
from fedexp.reporting.figures import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    VERMILLION,
    finite,
    legend_below,
    new_figure,
    tidy,
)
from fedexp.reporting.privacy import epsilon_of
from fedexp.reporting.results import Run
from fedexp.reporting.tables import Configuration, short_names

MOST_TICKS = 8  # epsilons that are named on an axis one by one


def epsilon_figure(run: Run) -> Figure | None:
    """Epsilon over the rounds, beside the limit if there was one."""
    curve = finite(run.curve("privacy", "epsilon"))
    if curve.empty:
        return None
    promise = run.summary.get("privacy") or {}
    title = f"Epsilon over the rounds (delta {promise.get('delta', '?')})"
    figure = new_figure(7.5, 3.8, title, run.description)
    axes = tidy(figure.subplots(), grid="both")
    spent = rounded_up(float(curve.iloc[-1]))
    label = f"epsilon for {promise.get('unit', 'the unit')} ({spent} at the end)"
    axes.plot(curve.index, curve, color=BLUE, marker="o", markersize=4, linewidth=1.6, label=label)
    if promise.get("max_epsilon") is not None:
        limit = float(promise["max_epsilon"])
        text = f"max_epsilon ({limit:g})"
        axes.axhline(limit, color=BLACK, linestyle="--", linewidth=1.2, label=text)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("Round")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_ylabel("epsilon")
    legend_below(figure, axes)
    return figure


def accuracy_by_epsilon_figure(groups: Sequence[Configuration], subtitle: str) -> Figure | None:
    """Test accuracy against epsilon, a line for what differs beside it; None below two epsilons.

    Runs without a mechanism, and those whose epsilon is infinite, are drawn as levels: what
    privacy, and noise alone, is measured against. An epsilon for one example and one for a whole
    client are other promises: where both are there, every line says whose its is.
    """
    points = _points(groups)
    spent = points[np.isfinite(points["epsilon"])] if len(points) else points
    if len(spent) == 0 or spent["epsilon"].round(3).nunique() < 2:
        return None
    units = spent["unit"].nunique() > 1
    height = 4.6 + (0.2 * spent["line"].nunique() if units else 0)  # long lines below each other
    figure = new_figure(7.5, height, "Accuracy against epsilon", subtitle)
    axes = tidy(figure.subplots(), grid="both")
    colours = cycle((BLUE, VERMILLION, GREEN, PURPLE, ORANGE, BLACK))
    looks = zip(colours, cycle("os^Dv"), strict=False)  # another marker too: 30 before one returns
    levels = [
        (style, label, points[without].groupby("line")["accuracy"].mean())
        for style, label, without in (
            (":", "the same without privacy", np.isnan(points["epsilon"])),
            ("-.", "the same at epsilon infinity", np.isinf(points["epsilon"])),
        )
    ]
    for (line, of_line), (colour, marker) in zip(spent.groupby("line"), looks, strict=False):
        ordered = of_line.sort_values("epsilon")
        of = f" (for {of_line['unit'].iloc[0]})" if units else ""
        axes.errorbar(
            ordered["epsilon"],
            ordered["accuracy"],
            yerr=ordered["deviation"].fillna(0),
            color=colour,
            marker=marker,
            capsize=3,
            label=f"{line or 'with noise'}{of}",
        )
        for style, _, level in levels:
            if line in level.index:
                axes.axhline(float(level[line]), color=colour, linestyle=style, linewidth=1.2)
    for style, label, level in levels:
        if len(level):
            axes.plot([], [], color=GREY, linestyle=style, label=label)
    axes.set_xscale("log")
    # One tick for what was asked for and what was reached of it: 64 and 63.99.
    alike = spent["epsilon"].map(lambda epsilon: float(f"{epsilon:.2g}"))
    measured = spent.groupby(alike)["epsilon"].max()
    if len(measured) <= MOST_TICKS:
        axes.minorticks_off()
        axes.set_xticks(list(measured), [f"{epsilon:.4g}" for epsilon in measured])
    axes.set_xlabel("epsilon (logarithmic; smaller is more private)")
    axes.set_ylabel("Test accuracy (± standard deviation over the seeds)")
    legend_below(figure, axes)
    return figure


def _points(groups: Sequence[Configuration]) -> pd.DataFrame:
    """One row a configuration: its epsilon, its accuracy over the seeds, and the line it is on."""
    rows = []
    for group in groups:
        if not group.complete:
            continue
        accuracies = group.by_seed(lambda run: run.final("test", "accuracy"))
        beside = {
            name: value
            for name, value in group.settings.items()
            if name != "privacy" and not name.startswith("privacy.")
        }
        names = short_names(list(beside))
        rows.append(
            {
                "epsilon": group.by_seed(epsilon_of).mean(),
                "accuracy": accuracies.mean(skipna=False),
                "deviation": accuracies.std(skipna=False),
                "line": ", ".join(
                    f"{names[name]}={value}" if isinstance(value, int | float) else str(value)
                    for name, value in beside.items()
                ),
                "unit": (group.complete[0].summary.get("privacy") or {}).get("unit", ""),
            }
        )
    return pd.DataFrame(rows)
