"""Draws the matrices: who holds what, which class is taken for which, what survives an attack."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator, PercentFormatter

from fedexp.reporting.figures import BLUE, name_columns, name_rows, new_figure, tidy
from fedexp.reporting.glyphs import drawn_names
from fedexp.reporting.numbers import number_cells
from fedexp.reporting.results import Run
from fedexp.reporting.robustness import NOBODY, WORST, matrices, missing_note

_MOST_NAMED_CLIENTS = 40  # beyond, a row is too thin to carry its client's number
_MOST_NUMBERED_CLIENTS = 20
_MOST_NUMBERED_CLASSES = 12
_MOST_PANELS = 12
_MOST_DEFENCES = 40
_CELL = 0.56  # inches, the least width of a cell: a number with three decimals


def partition_figure(run: Run) -> Figure | None:
    """Who holds what: training images of each class at each client."""
    partition = run.partition or {}
    counts = np.asarray(partition.get("counts") or [], dtype=np.int64)
    if counts.ndim != 2 or counts.size == 0:
        return None
    names = [str(name) for name in partition.get("class_names") or range(counts.shape[1])]
    if len(counts) <= _MOST_NAMED_CLIENTS:
        return _few_clients(run, counts, names)
    return _many_clients(run, counts, names)


def confusion_figure(run: Run) -> Figure | None:
    """Which class is taken for which on the test part; shades are shares of the true class."""
    if run.confusion is None or run.confusion.empty:
        return None
    counts = run.confusion.to_numpy(dtype=np.float64)
    # A class without test images has no shares: its row stays 0.
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = [str(name) for name in run.confusion.columns]
    side = float(np.clip(0.62 * len(names), 2.4, 9.5))
    tested = run.curve("test", "accuracy")
    when = "" if tested.empty else f" after round {tested.index[-1]}"
    figure = new_figure(
        side + 3.0,
        side + 1.6,
        f"Which class is taken for which: test images{when}",
        run.description,
    )
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    bar = figure.colorbar(image, ax=axes, shrink=0.9, label="Share of the true class's images")
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
    accuracy = matrices(table, "test_accuracy_mean")
    success = matrices(table, "attack_success_mean")
    unmeasured = matrices(table, "unmeasured")
    panels = list(accuracy)[:_MOST_PANELS]
    shown = {panel: accuracy[panel].iloc[:, :_MOST_DEFENCES] for panel in panels}
    rows, columns = (max(part.shape[axis] for part in shown.values()) for axis in (0, 1))
    two_lines = any(success[panel].notna().any(axis=None) for panel in panels)

    names = [*table["defence"].unique(), *(f"{attack:>10}" for attack in table["attack"].unique())]
    margin = 0.08 * min(max(map(len, names)), 40)
    cell = float(np.clip(5.0 / (columns * len(panels)), _CELL, 1.1))
    width, height = columns * cell + margin + 0.4, rows * (0.44 if two_lines else 0.34)
    across = min(len(panels), max(1, int(13 / width)))
    down = math.ceil(len(panels) / across)
    notes = [subtitle, "Mean over the seeds, last round.", missing_note(table)]
    if two_lines:
        notes.append("In brackets: how often the attack gets the answer that it wants.")
    left_out = len(accuracy) - len(panels)
    if left_out or any(len(accuracy[panel].columns) > _MOST_DEFENCES for panel in panels):
        notes.append("Not all are drawn: see robustness.csv.")
    figure = new_figure(
        max(across * width + 1.0, 6.5),
        down * (height + 0.7 * margin + 0.6),
        "Test accuracy: which defence survives which attack",
        " ".join(filter(None, notes)),
    )
    grid = figure.subplots(down, across, squeeze=False)
    low, high = _round_limits(np.concatenate([part.to_numpy().ravel() for part in shown.values()]))
    for axes, (panel, part) in zip(grid.flat, shown.items(), strict=False):
        bounds = [bool(count) for count in unmeasured[panel].T[WORST]]
        wanted = success[panel].reindex(index=part.index, columns=part.columns).to_numpy()
        picture = _attacks_against_defences(axes, part, wanted, bounds, (low, high))
        name_columns(axes, [str(defence) for defence in part.columns], width=cell, limit=40)
        axes.set_title(panel.replace("$", r"\$"), loc="left", fontsize=10.5)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    bar = figure.colorbar(picture, ax=grid, shrink=min(1.0, 2.5 / height), pad=0.02, aspect=18)
    bar.set_label("Test accuracy")
    return figure


def _attacks_against_defences(
    axes: Axes,
    accuracy: pd.DataFrame,
    wanted: np.ndarray,
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
        if not (worst or math.isnan(wanted[row, column])):
            text += f"\n({wanted[row, column]:.0%})"
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


def _few_clients(run: Run, counts: np.ndarray, names: list[str]) -> Figure:
    """A row a client: its count of each class, and a bar for its total."""
    n_clients, n_classes = counts.shape
    numbered = n_clients <= _MOST_NUMBERED_CLIENTS and n_classes <= _MOST_NUMBERED_CLASSES
    matrix_width = float(np.clip(0.62 * n_classes, 2.2, 9))
    row_height = 0.3 if n_clients <= 25 else 0.22
    clients = drawn_names(run, range(n_clients))
    name_width = 0.08 * max(0, max(map(len, clients)) - 3)  # inches beyond a number's
    figure = new_figure(
        matrix_width + 4.2 + name_width,
        row_height * n_clients + 1.7,
        "Who holds what: training images of each class at each client",
        run.description,
    )
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[matrix_width, 2.2])
    image = left.imshow(counts, cmap="Blues", vmin=0, vmax=max(1, counts.max()), aspect="auto")
    name_columns(left, names, width=matrix_width / n_classes)
    left.set_yticks(range(n_clients), clients)
    left.tick_params("y", length=0, labelsize=9 if n_clients <= 25 else 8)
    left.set_xlabel("Class")
    left.set_ylabel("Client" if run.names_clients else "Client number")
    if numbered:
        words = [[str(count) for count in row] for row in counts.tolist()]
        number_cells(left, words, counts / max(1, counts.max()), size=8.5)
    else:
        figure.colorbar(image, ax=left, location="left", label="Training images", pad=0.02)

    sizes = counts.sum(axis=1)
    tidy(right)
    right.barh(range(n_clients), sizes, color=BLUE, height=0.7)
    for client, size in enumerate(sizes):
        right.text(size, client, f" {size:,}", va="center", fontsize=8.5)
    right.set_xlim(0, max(1, sizes.max()) * 1.35)
    right.xaxis.set_major_locator(MaxNLocator(3, integer=True))
    right.tick_params("y", length=0)
    right.set_xlabel("Images in all")
    return figure


def _many_clients(run: Run, counts: np.ndarray, names: list[str]) -> Figure:
    """A column a client: the share of each class; below, how many images the clients hold."""
    n_clients, n_classes = counts.shape
    sizes = counts.sum(axis=1)
    shares = counts / np.maximum(sizes, 1)[:, None]
    # Neighbours that look alike make the skew visible; the client numbers mean nothing.
    order = np.lexsort((-shares.max(axis=1), shares.argmax(axis=1)))
    matrix_height = float(np.clip(0.3 * n_classes, 1.2, 7))
    figure = new_figure(
        9, matrix_height + 3.6, "Who holds what: classes and sizes of the clients", run.description
    )
    top, bottom = figure.subplots(2, 1, height_ratios=[matrix_height, 1.9])
    image = top.imshow(shares[order].T, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    bar = figure.colorbar(image, ax=top, label="Share of the\nclient's images", pad=0.01)
    bar.ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    name_rows(top, names)
    top.set_ylabel("Class")
    top.set_xlabel(f"{n_clients:,} clients, ordered by the class that they hold most of")

    tidy(bottom, grid="y")
    bottom.hist(sizes, bins=_whole_bins(sizes), color=BLUE, edgecolor="white", linewidth=0.5)
    bottom.xaxis.set_major_locator(MaxNLocator(integer=True))
    bottom.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    bottom.set_xlabel("Training images that a client holds")
    bottom.set_ylabel("Clients")
    return figure


def _whole_bins(sizes: np.ndarray) -> list[float]:
    """At most 40 bins whose edges lie halfway between whole numbers, so that none is favoured."""
    low, high = int(sizes.min()), int(sizes.max())
    width = (high - low) // 40 + 1
    return [edge - 0.5 for edge in range(low, high + width + 1, width)]
