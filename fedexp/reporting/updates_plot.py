"""Draws where the updates of some rounds stand, on their two principal components.

    X = rows [n, d] - their mean,    G = X X' = U L U',    coordinates = U_2 L_2^(1/2)

Of runs that kept their updates (`record_updates`): of six rounds, spread over the run, and no more
files than these are read. A row longer than three times its round's median is drawn at that
length, or an attacker who scales up would leave everybody else one dot.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fedexp.reporting.figures import BLUE, VERMILLION, legend_below, new_figure, tidy
from fedexp.reporting.results import Run

if TYPE_CHECKING:
    from fedexp.run_folder.update_folder import UpdateFile

_ROUNDS, _ACROSS = 6, 3
_MOST_ROWS = 300  # of a round
_MOST_BYTES = 2**28  # of its rows as float32
LONGEST = 3.0  # of the median length


def updates_figure(run: Run) -> Figure | None:
    """A panel a round; None for a run that kept no updates, or none that can be read."""
    if not (run.path / "updates" / "index.csv").is_file():
        return None
    from fedexp.run_folder.update_folder import find_updates  # with torch

    files = find_updates(run.path / "updates").files
    rounds = sorted({file.round for file in files if file.round is not None})
    chosen = [rounds[k] for k in np.unique(np.linspace(0, len(rounds) - 1, _ROUNDS).astype(int))]
    panels, left_out = [], False
    for number in chosen:
        of_round = _one_each([file for file in files if file.round == number])
        malicious, rows = _rows(of_round)
        left_out |= len(rows) < len(of_round)
        if len(rows) > 1:
            panels.append((number, malicious, *plane(rows)))
    if not panels:
        return None
    across, down = min(_ACROSS, len(panels)), -(-len(panels) // _ACROSS)
    notes = [
        f"{run.description}.",
        f"Rows beyond {LONGEST:g} times the median length are drawn there.",
    ]
    notes += ["Not all rows of a round are drawn."] if left_out else []
    title = "Where the clients' updates stand, in the plane of most variance"
    figure = new_figure(max(3.3 * across, 6.5), 2.9 * down + 0.5, title, " ".join(notes))
    grid = figure.subplots(down, across, squeeze=False)
    for axes, (number, malicious, places, share) in zip(grid.flat, panels, strict=False):
        _panel(axes, malicious, places)
        axes.set_title(f"Round {number}: {share:.0%} of the variance", loc="left", fontsize=10)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes in grid[:, 0]:
        axes.set_ylabel("Second component")
    for axes in grid[-1]:
        axes.set_xlabel("First component")
    both = max(panels, key=lambda panel: len(set(panel[1].tolist())))  # whose legend has all
    legend_below(figure, grid.flat[panels.index(both)])
    return figure


def plane(rows: np.ndarray) -> tuple[np.ndarray, float]:
    """Where rows `[n, d]` lie in the plane of their two principal components: `[n, 2]`.

    And the share of their variance that lies in it. Signs are such that the largest coordinate is
    positive.

    >>> places, share = plane(np.array([[0.0, 1.0, 0.0], [0.0, -1.0, 0.0]]))
    >>> [round(float(abs(x)), 6) for x in places[:, 0]], round(share, 6)
    ([1.0, 1.0], 1.0)
    """
    lengths = np.linalg.norm(rows, axis=1)
    cap = LONGEST * np.median(lengths)
    factors = np.minimum(1, cap / np.maximum(lengths, 1e-30)).astype(rows.dtype)
    rows = rows * factors[:, None]
    rows -= rows.mean(axis=0)
    values, vectors = np.linalg.eigh((rows @ rows.T).astype(np.float64))
    values = np.maximum(values, 0)
    places = vectors[:, :-3:-1] * np.sqrt(values[:-3:-1])
    largest = places[np.abs(places).argmax(axis=0), [0, 1]]
    share = float(values[-2:].sum() / max(values.sum(), 1e-30))
    return places * np.where(largest < 0, -1, 1), share


def _panel(axes: Axes, malicious: np.ndarray, places: np.ndarray) -> None:
    tidy(axes, grid="both")
    for kind, colour, marker, size, name in (
        (~malicious, BLUE, "o", 5.5, "honest"),
        (malicious, VERMILLION, "X", 8.0, "malicious"),
    ):
        if kind.any():
            look: dict[str, Any] = {"color": colour, "markersize": size, "markeredgecolor": "white"}
            axes.plot(*places[kind].T, marker, **look, markeredgewidth=0.6, label=name)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(4))
    axes.ticklabel_format(style="sci", scilimits=(-2, 3))
    axes.margins(0.12)


def _one_each(files: Sequence[UpdateFile]) -> list[UpdateFile]:
    """One file of every update: a run may have written each in two forms."""
    return list({file.path.with_suffix(""): file for file in reversed(files)}.values())[::-1]


def _rows(files: Sequence[UpdateFile]) -> tuple[np.ndarray, np.ndarray]:
    """Whose rows are malicious `[n]` bool, and the rows `[n, d]` float32, as far as they fit."""
    found: list[tuple[bool, np.ndarray]] = []
    for malicious, row in _readable(files):
        if len(found) >= min(_MOST_ROWS, max(2, _MOST_BYTES // max(row.nbytes, 1))):
            break
        found.append((malicious, row))
    rows = [row for _, row in found]
    return np.array([m for m, _ in found], dtype=bool), np.stack(rows) if rows else np.empty((0, 0))


def _readable(files: Sequence[UpdateFile]) -> Iterator[tuple[bool, np.ndarray]]:
    """The finite rows among files that can be read and are of one model."""
    from fedexp.run_folder.untrusted import NotUsable
    from fedexp.run_folder.update_files import Layout
    from fedexp.run_folder.update_folder import reader

    read, layout = reader(None), None
    for file in files:
        try:
            tensors = read(file)
        except NotUsable:
            continue
        layout = layout or Layout.of_tensors(tensors)
        if layout.difference(Layout.of_tensors(tensors)):
            continue
        row = layout.join(tensors).numpy()
        if np.isfinite(row).all():
            yield bool(file.malicious), row
