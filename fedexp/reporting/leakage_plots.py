"""Draws the studies of leakage: ROC curves, scores of canaries, the noise ladder, images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from fedexp.reporting.figures import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    VERMILLION,
    legend_below,
    new_figure,
    tidy,
)
from fedexp.reporting.leakage import is_attacked
from fedexp.reporting.leakage_images import (
    array_of,
    model_inversion_figure,
    sweep_classes_figure,
    sweep_reconstructions_figure,
    update_inversion_figure,
)
from fedexp.reporting.leakage_sweep import noise_ladder
from fedexp.reporting.results import Run
from fedexp.reporting.tables import Configuration
from fedexp.run_folder.findings import StudyRecord

_LEAST_RATE = 1e-3  # where the axes of a ROC begin; zeros stand there
_COLOURS, _LINES = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, BLACK), ("-", "--", "-.", ":")
_LOOKS = [(_COLOURS[k % 6], _LINES[k % 4], "osD^vPX"[k % 7]) for k in range(84)]
_BASELINE_LOOKS = ((0, (6, 2)), (0, (3, 2)), (0, (1, 1)), (0, (6, 2, 1, 2)), (0, (8, 3, 1, 3)))


def leakage_figures(run: Run) -> dict[str, Figure]:
    """Every picture that a run's studies have arrays for, by the name of its file."""
    figures = {}
    for study in run.leakage:
        name = f"leakage_{study.name}"
        if (found := update_inversion_figure(run, study)) is not None:
            figures[name] = found
        if (found := model_inversion_figure(run, study)) is not None:
            figures[name] = found
        if (found := audit_figure(run, study)) is not None:
            figures[name] = found
    if (roc := roc_figure(run)) is not None:
        figures["leakage_roc"] = roc
    if (ladder := noise_ladder_figure([run], run.description)) is not None:
        figures["leakage_noise"] = ladder
    return figures


def leakage_sweep_figures(groups: Sequence[Configuration], subtitle: str) -> dict[str, Figure]:
    """Pictures that lay settings side by side, by the name of their files."""
    figures = {
        "leakage_images.png": sweep_reconstructions_figure(groups, subtitle),
        "leakage_classes.png": sweep_classes_figure(groups, subtitle),
        "leakage_noise.png": noise_ladder_figure(
            [run for group in groups for run in group.complete], subtitle
        ),
    }
    return {name: figure for name, figure in figures.items() if figure is not None}


def roc_figure(run: Run) -> Figure | None:
    """Members found against false alarms, on log axes, of all studies of membership together."""
    studies = [study for study in run.leakage if len(array_of(study, "fpr"))]
    if not studies:
        return None
    figure = new_figure(
        6.4, 5.6, "Who was trained on: members found, by false alarms", run.description
    )
    axes = tidy(figure.subplots(), grid="both")
    at = np.geomspace(_LEAST_RATE, 1, 50)
    for place, (study, (colour, line, _)) in enumerate(zip(studies, _LOOKS, strict=False)):
        auc = study.headline.get("auc", np.nan)
        axes.plot(
            *_drawable(study.arrays["fpr"], study.arrays["tpr"]),
            color=colour,
            linestyle=line,
            linewidth=1.8,
            drawstyle="steps-post",
            label=f"{study.name} (AUC {auc:.3f})",
        )
        for rate, low, high in _null_intervals(study):
            # Beside each other, and each no wider than can be told from its neighbour.
            left = rate * 1.12 ** (place - len(studies) / 2)
            axes.fill_between(
                [left, left * 1.1],
                max(low, _LEAST_RATE),
                max(high, _LEAST_RATE),
                color=colour,
                alpha=0.35,
                linewidth=0,
                zorder=0.5,
            )
    axes.plot(at, at, color=GREY, linestyle="--", linewidth=1, label="chance")
    if any(list(_null_intervals(study)) for study in studies):
        axes.fill_between([], [], color=GREY, alpha=0.35, label="chance, 95 % of shuffles")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(0.8 * _LEAST_RATE, 1)  # with room for the intervals at 0.1 %
    axes.set_ylim(0.8 * _LEAST_RATE, 1.05)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda rate, _: f"{100 * rate:g} %"))
    axes.set_aspect("equal")
    axes.set_xlabel("False-positive rate: non-members taken for members")
    axes.set_ylabel("True-positive rate: members found")
    legend_below(figure, axes)
    return figure


def audit_figure(run: Run, study: StudyRecord) -> Figure | None:
    """Scores of canaries that were in and that were out, and what bound on epsilon they give."""
    inside, outside = (array_of(study, f"scores_{kind}") for kind in ("in", "out"))
    inside, outside = inside[np.isfinite(inside)], outside[np.isfinite(outside)]
    if not len(inside) or not len(outside):
        return None
    title = f"{study.name}: canaries that were in, and canaries that were out"
    figure = new_figure(7.5, 4.4, title, run.description)
    axes = tidy(figure.subplots(), grid="y")
    both = np.concatenate([inside, outside])
    bins = np.histogram_bin_edges(both, int(np.clip(np.sqrt(len(both)), 8, 40)))
    looks = {"in": (inside, VERMILLION, "//"), "out": (outside, BLUE, "")}
    for kind, (scores, colour, hatch) in looks.items():
        axes.stairs(
            np.histogram(scores, bins)[0],
            bins,
            fill=True,
            facecolor=(colour, 0.4),
            edgecolor=colour,
            hatch=hatch,
            linewidth=1.3,
            label=f"canaries that were {kind} ({len(scores):,})",
        )
    bound, claim = (study.headline.get(f"epsilon_{what}") for what in ("lower_bound", "claimed"))
    if bound is not None and claim is not None:
        alarm = study.headline.get("alarm", float(bound > claim)) > 0
        verdict = "ALARM: the claim is ruled out" if alarm else "no contradiction"
        axes.set_title(
            f"epsilon is at least {bound:.3g}, claimed is {claim:.3g}: {verdict}",
            loc="left",
            fontsize=10.5,
            color=VERMILLION if alarm else BLACK,
            weight="bold" if alarm else "normal",
        )
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_xlabel("Score; the larger, the surer that the canary was in")
    axes.set_ylabel("Canaries")
    legend_below(figure, axes)
    return figure


def noise_ladder_figure(runs: Sequence[Run], subtitle: str) -> Figure | None:
    """Images and labels recovered against the noise multiplier; None without two multipliers."""
    table = noise_ladder(runs)
    if table.empty:
        return None
    title = "How much noise hides images, and how much labels"
    figure = new_figure(7.5, 6.2, title, f"{subtitle}. Dashed: guesses without the update")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[1.5, 1])
    attacked = table[table["subject"].map(is_attacked)]
    lines = list(attacked["line"].unique())
    for line, (colour, dashes, marker) in zip(lines, _LOOKS, strict=False):
        of_line = attacked[attacked["line"] == line]
        images = of_line[of_line["metric"] == "psnr_db"]
        labels = of_line[of_line["metric"] != "psnr_db"]
        for axes, points in ((upper, images), (lower, labels)):
            if len(points):
                _band(axes, points, colour, dashes, marker, line)
    for (name, psnr), look in zip(_baselines(table).items(), _BASELINE_LOOKS, strict=False):
        label = f"guess: {name} ({psnr:.1f} dB)"
        upper.axhline(psnr, color=GREY, linestyle=look, linewidth=1.1, label=label)
    noises = np.sort(table["noise"].unique())
    for axes in (upper, lower):
        tidy(axes, grid="both")
        least = float(noises[noises > 0].min())
        axes.set_xscale("symlog", linthresh=least, linscale=0.5)
        axes.set_xlim(0 if noises[0] == 0 else 0.8 * least, 1.25 * noises[-1])
        axes.set_xticks(noises, [f"{noise:g}" for noise in noises])
        axes.minorticks_off()
    upper.set_ylabel("PSNR of the images (dB)")
    lower.set_ylabel("Labels recovered (share)")
    lower.set_ylim(-0.03, 1.05)
    lower.set_xlabel("Noise multiplier (0, then logarithmic); shaded: 95 % intervals over targets")
    legend_below(figure, upper)
    return figure


def _drawable(fpr: np.ndarray, tpr: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A ROC whose zeros stand at the edge of log axes."""
    return np.maximum(fpr, _LEAST_RATE), np.maximum(tpr, _LEAST_RATE)


def _null_intervals(study: StudyRecord) -> Iterable[tuple[float, float, float]]:
    """False-positive rate, and the ends of what chance gives there, of every rate measured."""
    for name, low in study.headline.items():
        if name.startswith("tpr_at_") and name.endswith("_percent_fpr_null_low"):
            rate = float(name.removeprefix("tpr_at_").partition("_percent")[0]) / 100
            high = study.headline.get(name.removesuffix("low") + "high", np.nan)
            if np.isfinite([low, high]).all():
                yield rate, low, high


def _band(
    axes: Axes, points: pd.DataFrame, colour: str, line: str, marker: str, label: str
) -> None:
    at = points["noise"].to_numpy()
    axes.plot(
        at,
        points["mean"].to_numpy(),
        color=colour,
        linestyle=line,
        marker=marker,
        markersize=5,
        linewidth=1.7,
        label=label,
        clip_on=False,
        zorder=3,
    )
    low, high = points["low"].to_numpy(), points["high"].to_numpy()
    axes.fill_between(at, low, high, color=colour, alpha=0.18, linewidth=0)


def _baselines(table: pd.DataFrame) -> Mapping[str, float]:
    """The mean PSNR of what is compared with, the best first."""
    others = table[~table["subject"].map(is_attacked) & (table["metric"] == "psnr_db")]
    means = others.groupby("subject")["mean"].mean().sort_values(ascending=False)
    return {str(subject): float(mean) for subject, mean in means.items()}
