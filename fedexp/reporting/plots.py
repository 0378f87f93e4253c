"""Draws the curves of a run and its single clients. None where there is nothing to show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fedexp.reporting.adversary import attack_success, first_attacked_round
from fedexp.reporting.curves_plot import curves_figure
from fedexp.reporting.detector_plots import detector_roc_figure, detector_scores_figure
from fedexp.reporting.figures import (
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    SKY_BLUE,
    VERMILLION,
    all_short,
    finite,
    legend_below,
    new_figure,
    save,
    tidy,
)
from fedexp.reporting.glyphs import drawn_names
from fedexp.reporting.heatmaps import confusion_figure
from fedexp.reporting.leakage_plots import leakage_figures
from fedexp.reporting.limits import limits_of_interest
from fedexp.reporting.partition_plots import partition_figure
from fedexp.reporting.privacy_plots import epsilon_figure
from fedexp.reporting.results import Run
from fedexp.reporting.updates_plot import updates_figure
from fedexp.reporting.verdict_plots import verdict_figure

_STYLES = {
    "train": (GREY, ":", "^"),
    "validation": (ORANGE, "--", "s"),
    "test": (BLUE, "-", "o"),
    "attack success": (VERMILLION, "-.", "D"),
}
_MOST_LEVEL = 25  # names that may be written side by side
_MOST_BARS = 60  # clients; more of them become a histogram
_LOG_SCALE_FROM = 50.0  # the ratio of the largest loss to the smallest


def write_run_plots(
    run: Run, folder: Path, also: Sequence[str] = (), style: str = "screen"
) -> list[Path]:
    """Save every picture that the run has data for into `folder`; return the PNGs written.

    `also` and `style` as in `save`.
    """
    figures = {
        "loss": loss_figure(run),
        "accuracy": accuracy_figure(run),
        "partition": partition_figure(run),
        "confusion_matrix": confusion_figure(run),
        "curves": curves_figure(run),
        "per_client_accuracy": client_accuracy_figure(run),
        "detector_scores": detector_scores_figure(run),
        "detector_roc": detector_roc_figure(run),
        "updates": updates_figure(run),
        "epsilon": epsilon_figure(run),
        "verdict": verdict_figure(run.verdict) if run.verdict else None,
        **leakage_figures(run),
    }
    return [
        save(figure, folder / f"{name}.png", also, style)
        for name, figure in figures.items()
        if figure is not None
    ]


def loss_figure(run: Run) -> Figure | None:
    """Training, validation and test loss over the rounds; on a log scale if they span a lot."""
    curves = {
        "train": finite(run.curve("train", "loss")),
        "validation": finite(run.model_curve("validation", "loss")),
        "test": finite(run.model_curve("test", "loss")),
    }
    values = pd.concat(list(curves.values()))
    if values.empty:
        return None
    figure = new_figure(7.5, 4.4, "Loss over the rounds", run.description)
    axes = tidy(figure.subplots(), grid="both")
    for part, curve in curves.items():
        _draw_curve(axes, run, part, "loss", curve)
    axes.set_ylabel("Mean loss per image")
    if values.min() > 0 and values.max() > _LOG_SCALE_FROM * values.min():
        axes.set_yscale("log")
        axes.set_ylabel("Mean loss per image (log scale)")
    _finish_curves(figure, axes)
    return figure


def accuracy_figure(run: Run) -> Figure | None:
    """Validation and test accuracy over the rounds, and what the commonest class alone would get.

    Under an attack that wants something, how often it gets it; and where an attack begins later.
    Without a shared model: the mean over the clients' models, with a band from worst to best.
    """
    curves = {part: finite(run.model_curve(part, "accuracy")) for part in ("validation", "test")}
    if all(curve.empty for curve in curves.values()):
        return None
    figure = new_figure(7.5, 4.4, "Accuracy over the rounds", run.description)
    axes = tidy(figure.subplots(), grid="both")
    for part, curve in curves.items():
        _draw_curve(axes, run, part, "accuracy", curve)
    success = attack_success(run)
    _draw_curve(axes, run, "attack success", "success", success)
    low, high = limits_of_interest([*curves.values(), success])
    axes.set_ylim(low, high)
    baseline = run.majority_baseline("test")
    if np.isfinite(baseline):
        below = ", below" if baseline < low else ""
        label = f"always the commonest class ({baseline:.3f}{below})"
        axes.axhline(baseline, color=BLACK, linestyle=(0, (6, 4)), linewidth=0.9, label=label)
    start = first_attacked_round(run)
    if start is not None and start > 1:
        label = f"first attacked round ({start})"
        axes.axvline(start, color=GREY, linestyle=":", linewidth=1.6, label=label)
    right = "Accuracy (fraction of examples right)"
    axes.set_ylabel(right if success.empty else "Fraction of examples")
    _finish_curves(figure, axes)
    return figure


def client_accuracy_figure(run: Run) -> Figure | None:
    """Accuracy of every single client in its last evaluation: sorted bars, or a histogram."""
    measured = {
        "on the client's own patients": run.per_client("test", "own_accuracy"),
        "on the client's own mix of classes (estimate)": run.per_client("test", "own_mix_accuracy"),
        "on the common test part": run.per_client("test", "accuracy"),
    }
    measured = {meaning: values for meaning, values in measured.items() if not values.empty}
    if not measured:
        return None
    n_clients = max(map(len, measured.values()))
    overall = run.final("test", "accuracy")
    if run.shares_model:
        title = "The shared model's test accuracy, client by client"
        overall_label = f"shared model, whole test part ({overall:.3f})"
    else:
        title = "Test accuracy of every client's own model"
        overall_label = f"mean of all models, common test part ({overall:.3f})"
    line: dict[str, Any] = {
        "color": BLACK,
        "linestyle": "--",
        "linewidth": 1.2,
        "label": overall_label,
    }
    if n_clients <= _MOST_BARS:
        width = float(np.clip(2 + 0.2 * n_clients, 7.5, 13))
        names = all_short(drawn_names(run, next(iter(measured.values())).index))
        below = 0.08 * max(map(len, names)) if _upright(names) else 0.0
        figure = new_figure(width, 4.4 + below, title, run.description)
        axes = tidy(figure.subplots(), grid="y")
        _client_bars(run, axes, measured)
        if np.isfinite(overall):
            axes.axhline(overall, **line)
    else:
        figure = new_figure(7.5, 4.4, title, run.description)
        axes = tidy(figure.subplots(), grid="y")
        _client_histogram(axes, measured)
        if np.isfinite(overall):
            axes.axvline(overall, **line)
        axes.set_ylabel(f"Clients (of {n_clients:,})")
    legend_below(figure, axes)
    return figure


def _client_bars(run: Run, axes: Axes, measured: Mapping[str, pd.Series[float]]) -> None:
    (bars, first), *others = measured.items()
    first = first.sort_values(ascending=False)
    at = np.arange(len(first))
    axes.bar(at, first.to_numpy(), color=SKY_BLUE, width=0.75, label=bars)
    for marks, values in others:
        heights = values.reindex(first.index).to_numpy()
        axes.plot(at, heights, "D", color=VERMILLION, markersize=5, label=marks)
    clients = all_short(drawn_names(run, first.index))
    axes.set_xticks(at, clients, fontsize=8 if len(first) > _MOST_LEVEL else 10)
    axes.tick_params("x", length=0, rotation=90 if _upright(clients) else 0)
    axes.set_xlim(-0.7, max(len(first), 5) - 0.3)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel(f"{'Client' if run.names_clients else 'Client number'}, best to worst")
    axes.set_ylabel("Accuracy (fraction of examples right)")


def _upright(names: Sequence[str]) -> bool:
    """Whether the names below bars are too many or too long to be written side by side."""
    return len(names) > _MOST_LEVEL or len(names) * max(map(len, names)) > 60


def _client_histogram(axes: Axes, measured: Mapping[str, pd.Series[float]]) -> None:
    every = np.concatenate([values.to_numpy() for values in measured.values()])
    bins = np.linspace(max(0.0, every.min() - 0.02), min(1.0, every.max() + 0.02), 31)
    for (meaning, values), colour, hatch in zip(
        measured.items(), (SKY_BLUE, ORANGE), ("", "///"), strict=False
    ):
        axes.hist(
            values.to_numpy(),
            bins=list(bins),
            color=colour,
            alpha=0.7,
            hatch=hatch,
            edgecolor="white",
            linewidth=0.5,
            label=meaning,
        )
    axes.set_xlabel("Accuracy (fraction of examples right)")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))


def _draw_curve(axes: Axes, run: Run, part: str, metric: str, curve: pd.Series[float]) -> None:
    if curve.empty:
        return
    colour, line, marker = _STYLES[part]
    of_many = part in ("validation", "test") and not run.shares_model
    axes.plot(
        curve.index.to_numpy(),
        curve.to_numpy(),
        label=f"{part}{', mean over clients' if of_many else ''} (last: {curve.iloc[-1]:.3f})",
        color=colour,
        linestyle=line,
        marker=marker,
        markersize=4.5,
        markevery=max(1, len(curve) // 25),
        linewidth=1.8,
    )
    if of_many and part == "test":
        low, high = (finite(run.curve(part, metric, bound)) for bound in ("min", "max"))
        band = pd.DataFrame({"low": low, "high": high}).dropna()
        axes.fill_between(
            band.index.to_numpy(),
            band["low"].to_numpy(),
            band["high"].to_numpy(),
            color=colour,
            alpha=0.16,
            linewidth=0,
            label="test, worst to best client",
        )


def _finish_curves(figure: Figure, axes: Axes) -> None:
    axes.set_xlabel("Round")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    legend_below(figure, axes)
