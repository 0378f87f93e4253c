"""Draws the two matrices of a run: who holds what, and which class is taken for which."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from fedexp.reporting.figures import BLUE, name_columns, name_rows, new_figure, number_cell, tidy
from fedexp.reporting.results import Run

_MOST_NAMED_CLIENTS = 40  # beyond, a row is too thin to carry its client's number
_MOST_NUMBERED_CLIENTS = 20
_MOST_NUMBERED_CLASSES = 12


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
        for (row, column), share in np.ndenumerate(shares):
            count = counts[row, column]
            percent = f"{share:.0%}" if share >= 0.01 else "<1%"
            text = f"{count:.0f}\n{percent}" if count else "0"
            number_cell(axes, row, column, text, share, size=9)
    return figure


def _few_clients(run: Run, counts: np.ndarray, names: list[str]) -> Figure:
    """A row a client: its count of each class, and a bar for its total."""
    n_clients, n_classes = counts.shape
    numbered = n_clients <= _MOST_NUMBERED_CLIENTS and n_classes <= _MOST_NUMBERED_CLASSES
    matrix_width = float(np.clip(0.62 * n_classes, 2.2, 9))
    row_height = 0.3 if n_clients <= 25 else 0.22
    figure = new_figure(
        matrix_width + 4.2,
        row_height * n_clients + 1.7,
        "Who holds what: training images of each class at each client",
        run.description,
    )
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[matrix_width, 2.2])
    image = left.imshow(counts, cmap="Blues", vmin=0, vmax=max(1, counts.max()), aspect="auto")
    name_columns(left, names, width=matrix_width / n_classes)
    left.set_yticks(range(n_clients), [str(client) for client in range(n_clients)])
    left.tick_params("y", length=0, labelsize=9 if n_clients <= 25 else 8)
    left.set_xlabel("Class")
    left.set_ylabel("Client number")
    if numbered:
        for (row, column), count in np.ndenumerate(counts):
            number_cell(left, row, column, f"{count}", count / max(1, counts.max()), size=8.5)
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
