"""Draws the matrices: which class is taken for which, and what survives an attack."""

from __future__ import annotations

import math
import textwrap

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import PercentFormatter

from fedexp.reporting.figures import name_columns, name_rows, new_figure
from fedexp.reporting.numbers import number_cells
from fedexp.reporting.results import Run
from fedexp.reporting.robustness import (
    ATTACK,
    DEFENCE,
    NOBODY,
    PERFECT,
    WORST,
    matrices,
    missing_note,
    side_by_side,
)

_MOST_NUMBERED_CLASSES = 12
_MOST_PANELS = 12
_MOST_DEFENCES = 40
_BAR = 0.22  # inches, the width of a colour bar beside many panels
_CELL = 0.56  # inches, the least width of a cell: a number with three decimals


def confusion_figure(run: Run) -> Figure | None:
    """Which class is taken for which on the test part; shades are shares of the true class."""
    if run.confusion is None or run.confusion.empty:
        return None
    counts = run.confusion.to_numpy(dtype=np.float64)
    # A class without test examples has no shares: its row stays 0.
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = [str(name) for name in run.confusion.columns]
    side = float(np.clip(0.62 * len(names), 2.4, 9.5))
    tested = run.curve("test", "accuracy")
    when = "" if tested.empty else f" after round {tested.index[-1]}"
    figure = new_figure(
        side + 3.0,
        side + 1.6,
        f"Which class is taken for which: test examples{when}",
        run.description,
    )
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    bar = figure.colorbar(image, ax=axes, shrink=0.9, label="Share of the true class's examples")
    bar.ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    name_rows(axes, names)
    name_columns(axes, names, width=side / len(names))
    axes.set_xlabel("Class that the model answered")
    axes.set_ylabel("True class")
    if len(names) <= _MOST_NUMBERED_CLASSES:
        words = [
            [_counted(count, share) for count, share in zip(*row, strict=True)]
            for row in zip(counts, shares, strict=True)
        ]
        number_cells(axes, words, shares, size=9)
    return figure


def _counted(count: float, share: float) -> str:
    """What stands in a cell of the confusion matrix."""
    percent = f"{share:.0%}" if share >= 0.01 else "<1%"
    return f"{count:.0f}\n{percent}" if count else "0"


def attack_matrix_figure(table: pd.DataFrame, subtitle: str = "") -> Figure:
    """Test accuracy of every defence under every attack, as `robustness_table` has it.

    A panel for each setting of all else. Of very many panels or defences the first are drawn.
    """
    table = side_by_side(table)
    accuracy = _sorted(table)
    spread = matrices(table, "test_accuracy_sd")
    success = matrices(table, "attack_success_mean")
    unmeasured = matrices(table, "unmeasured")
    panels = list(accuracy)[:_MOST_PANELS]
    shown = {panel: accuracy[panel].iloc[:, :_MOST_DEFENCES] for panel in panels}
    rows, columns = (max(part.shape[axis] for part in shown.values()) for axis in (0, 1))
    wants = any(success[panel].notna().any(axis=None) for panel in panels)
    varies = any(spread[panel].notna().any(axis=None) for panel in panels)

    names = [*table["defence"].unique(), *(f"{attack:>10}" for attack in table["attack"].unique())]
    margin = 0.08 * min(max(map(len, names)), 40)
    cell = float(np.clip(5.0 / (columns * len(panels)), _CELL, 1.1))
    width, height = columns * cell + margin + 0.4, rows * (0.34, 0.44, 0.56)[wants + varies]
    across = min(len(panels), max(1, int(13 / width)))
    down = math.ceil(len(panels) / across)
    notes = [subtitle, "Mean over the seeds, last round; sorted by the worst case and by the harm."]
    notes.append(missing_note(table))
    if varies:
        notes.append("±: standard deviation over the seeds.")
    if wants:
        notes.append("In brackets: how often the attack gets the answer that it wants.")
    left_out = len(accuracy) - len(panels)
    if left_out or any(len(accuracy[panel].columns) > _MOST_DEFENCES for panel in panels):
        notes.append("Not all are drawn: see robustness.csv.")
    # A panel's title may be as wide as the panel with the names to its left.
    titles = {panel: textwrap.wrap(panel, max(10, int(11 * width))) for panel in panels}
    whole = down * (height + 0.7 * margin + 0.4 + 0.2 * max(1, *map(len, titles.values())))
    figure = new_figure(
        max(across * width + 1.0, 6.5),
        whole,
        "Test accuracy: which defence survives which attack",
        " ".join(filter(None, notes)),
    )
    # One of the labels is bold, so every tick needs its own.
    grid = figure.subplots(down, across, squeeze=False, subplot_kw={"axes_class": Axes})
    low, high = _round_limits(np.concatenate([part.to_numpy().ravel() for part in shown.values()]))
    for axes, (panel, part) in zip(grid.flat, shown.items(), strict=False):
        bounds = [bool(unmeasured[panel].loc[WORST, defence]) for defence in part.columns]
        beside = _words_beside(
            *(of[panel].reindex(index=part.index, columns=part.columns) for of in (spread, success))
        )
        picture = _attacks_against_defences(axes, part, beside, bounds, (low, high))
        name_columns(axes, [str(defence) for defence in part.columns], width=cell, limit=40)
        fits = len(panel) * 0.09 < len(part.columns) * cell
        title = "\n".join(titles[panel]).replace("$", r"\$")
        axes.set_title(title, loc="left" if fits else "right", fontsize=10.5)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    shrink = min(1.0, 2.5 / height)
    aspect = max(18.0, shrink * whole / _BAR)
    bar = figure.colorbar(picture, ax=grid, shrink=shrink, pad=0.02, aspect=aspect)
    bar.set_label("Test accuracy")
    return figure


def _sorted(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The panels' accuracies, alike in all: the best worst case first, the worst attack last.

    Nobody's attack stays the first row, the worst case the last, and the perfect defence the first
    column. Defences whose worst case may be worse than what is known of it stand behind the others.
    """
    worst, figure = table[table[ATTACK] == WORST], "test_accuracy_mean"
    known = worst[figure].where(worst["unmeasured"] == 0)
    defences = _falling(known.groupby(worst[DEFENCE], sort=False).mean())
    attacks = _falling(table.groupby(ATTACK, sort=False)[figure].mean())
    columns = sorted(defences, key=lambda defence: defence != PERFECT)
    rows = sorted(attacks, key=lambda attack: (attack == WORST, attack != NOBODY))
    return {
        panel: part.reindex(index=rows, columns=[name for name in columns if name in part])
        for panel, part in matrices(table, figure).items()
    }


def _falling(values: pd.Series[float]) -> list[str]:
    """The names of values, the largest first, unknown ones last; equal ones as they came."""
    return [str(name) for name in values.sort_values(ascending=False, kind="stable").index]


def _words_beside(spread: pd.DataFrame, success: pd.DataFrame) -> np.ndarray:
    """What stands below the accuracy of every cell `[attacks, defences]`."""
    words, wishes = np.empty(spread.shape, dtype=object), success.to_numpy(dtype=np.float64)
    for at, deviation in np.ndenumerate(spread.to_numpy(dtype=np.float64)):
        wanted = wishes[at]
        words[at] = "" if math.isnan(deviation) else f"\n±{deviation:.3f}"
        if success.index[at[0]] != WORST and not math.isnan(wanted):
            words[at] += f"\n({wanted:.0%})"
    return words


def _attacks_against_defences(
    axes: Axes,
    accuracy: pd.DataFrame,
    beside: np.ndarray,
    bounds: list[bool],
    limits: tuple[float, float],
) -> AxesImage:
    """One panel: a row an attack, the worst case last; an unknown cell is grey and says "-"."""
    colours = colormaps["cividis"].with_extremes(bad="0.93")
    values = accuracy.to_numpy(dtype=np.float64)
    low, high = limits
    picture = axes.imshow(values, cmap=colours, vmin=low, vmax=high, aspect="auto")
    words: list[list[str]] = [[] for _ in values]
    darkness = np.empty_like(values)
    for (row, column), value in np.ndenumerate(values):
        worst = row == len(values) - 1
        text = "-" if math.isnan(value) else f"{value:.3f}"
        if worst and bounds[column] and text != "-":
            text = f"≤{text}"
        text += str(beside[row, column])
        red, green, blue, _ = picture.to_rgba(value) if text != "-" else (0.93, 0.93, 0.93, 1)
        darkness[row, column] = 1 - (0.299 * red + 0.587 * green + 0.114 * blue)
        words[row].append(text)
    number_cells(axes, words, darkness, size=8.5)
    name_rows(axes, [str(attack) for attack in accuracy.index], limit=40)
    lines = [len(values) - 1.5, *([0.5] if accuracy.index[0] == NOBODY else [])]
    for line in lines:
        axes.axhline(line, color="white", linewidth=4)
    axes.get_yticklabels()[-1].set_fontweight("bold")
    axes.spines[:].set_visible(False)
    return picture


def _round_limits(values: np.ndarray) -> tuple[float, float]:
    """The tenths around all values, for a colour bar that is easy to read."""
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0, 1.0
    low, high = math.floor(10 * values.min()) / 10, math.ceil(10 * values.max()) / 10
    return low, max(high, low + 0.1)
