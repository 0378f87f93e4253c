"""Draws who holds what: the classes of every client, and how much each holds where that differs."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from fedexp.reporting.figures import BLUE, name_columns, name_rows, new_figure, tidy
from fedexp.reporting.glyphs import drawn_names
from fedexp.reporting.numbers import number_cells
from fedexp.reporting.results import Run

_MOST_NAMED_CLIENTS = 40  # beyond, a row is too thin to carry its client's number
_MOST_NUMBERED_CLIENTS = 20
_MOST_NUMBERED_CLASSES = 12


def partition_figure(run: Run) -> Figure | None:
    """Who holds what: training examples of each class at each client."""
    partition = run.partition or {}
    counts = np.asarray(partition.get("counts") or [], dtype=np.int64)
    if counts.ndim != 2 or counts.size == 0:
        return None
    names = [str(name) for name in partition.get("class_names") or range(counts.shape[1])]
    if len(counts) <= _MOST_NAMED_CLIENTS:
        return _few_clients(run, counts, names)
    return _many_clients(run, counts, names)


def _few_clients(run: Run, counts: np.ndarray, names: list[str]) -> Figure:
    """A row a client: its count of each class, and a bar for its total."""
    n_clients, n_classes = counts.shape
    numbered = n_clients <= _MOST_NUMBERED_CLIENTS and n_classes <= _MOST_NUMBERED_CLASSES
    sizes = counts.sum(axis=1)
    said = _equal_sizes(sizes)
    matrix_width = float(np.clip(0.62 * n_classes, 2.2, 9))
    row_height = 0.3 if n_clients <= 25 else 0.22
    clients = drawn_names(run, range(n_clients))
    name_width = 0.08 * max(0, max(map(len, clients)) - 3)  # inches beyond a number's
    figure = new_figure(
        matrix_width + (1.8 if said else 4.2) + name_width,
        row_height * n_clients + 1.7,
        "Who holds what: training examples of each class at each client",
        f"{run.description}. {said}" if said else run.description,
    )
    widths = [matrix_width] if said else [matrix_width, 2.2]
    left, *beside = figure.subplots(
        1, len(widths), sharey=True, width_ratios=widths, squeeze=False
    )[0]
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
        figure.colorbar(image, ax=left, location="left", label="Training examples", pad=0.02)
    for right in beside:
        _size_bars(right, sizes)
    return figure


def _equal_sizes(sizes: np.ndarray) -> str:
    """In words that all clients hold as much, give or take one; "" where they do not.

    Bars of one length say nothing, and take a third of the picture.

    >>> _equal_sizes(np.array([126, 125, 126]))
    'Every client holds 125 or 126 examples.'
    >>> _equal_sizes(np.array([126, 12]))
    ''
    """
    low, high = int(sizes.min()), int(sizes.max())
    if high - low > 1:
        return ""
    return f"Every client holds {' or '.join(f'{n:,}' for n in sorted({low, high}))} examples."


def _size_bars(axes: Axes, sizes: np.ndarray) -> None:
    """A bar for what each client holds in all."""
    tidy(axes)
    axes.barh(range(len(sizes)), sizes, color=BLUE, height=0.7)
    for client, size in enumerate(sizes):
        axes.text(size, client, f" {size:,}", va="center", fontsize=8.5)
    axes.set_xlim(0, max(1, sizes.max()) * 1.35)
    axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))
    axes.tick_params("y", length=0)
    axes.set_xlabel("Examples in all")


def _many_clients(run: Run, counts: np.ndarray, names: list[str]) -> Figure:
    """A column a client: the share of each class; below, how many examples the clients hold."""
    n_clients, n_classes = counts.shape
    sizes = counts.sum(axis=1)
    shares = counts / np.maximum(sizes, 1)[:, None]
    # Neighbours that look alike make the skew visible; the client numbers mean nothing.
    order = np.lexsort((-shares.max(axis=1), shares.argmax(axis=1)))
    said = _equal_sizes(sizes)
    matrix_height = float(np.clip(0.3 * n_classes, 1.2, 7))
    figure = new_figure(
        9,
        matrix_height + (1.0 if said else 3.6),
        f"Who holds what: classes {'' if said else 'and sizes '}of the clients",
        f"{run.description}. {said}" if said else run.description,
    )
    heights = [matrix_height] if said else [matrix_height, 1.9]
    top, *below = figure.subplots(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    image = top.imshow(shares[order].T, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    bar = figure.colorbar(image, ax=top, label="Share of the\nclient's examples", pad=0.01)
    bar.ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    name_rows(top, names)
    top.set_ylabel("Class")
    top.set_xlabel(f"{n_clients:,} clients, ordered by the class that they hold most of")
    for bottom in below:
        _size_histogram(bottom, sizes)
    return figure


def _size_histogram(axes: Axes, sizes: np.ndarray) -> None:
    """How many clients hold how much."""
    tidy(axes, grid="y")
    axes.hist(sizes, bins=_whole_bins(sizes), color=BLUE, edgecolor="white", linewidth=0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.set_xlabel("Training examples that a client holds")
    axes.set_ylabel("Clients")


def _whole_bins(sizes: np.ndarray) -> list[float]:
    """At most 40 bins whose edges lie halfway between whole numbers, so that none is favoured."""
    low, high = int(sizes.min()), int(sizes.max())
    width = (high - low) // 40 + 1
    return [edge - 0.5 for edge in range(low, high + width + 1, width)]
