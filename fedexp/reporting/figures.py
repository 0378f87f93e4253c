"""How every picture looks: colours, headings, legends, class names, the PNG.

Colours are Okabe and Ito's, which colour-blind readers can tell apart (https://jfly.uni-koeln.de/
color/). Line styles and markers differ too, so that the pictures also read in black and white.
Figures are made without pyplot: no window, no global state.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from fedexp.core.files import write_atomically
from fedexp.reporting.axes import axes_class
from fedexp.reporting.glyphs import legible, use_installed_fonts
from fedexp.reporting.paper import for_paper

BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY_BLUE, BLACK, GREY = "#E69F00", "#56B4E9", "#000000", "#5A5A5A"
DOTS_PER_INCH = 150

_MOST_CLASS_NAMES = 40


def new_figure(width: float, height: float, title: str, subtitle: str = "") -> Figure:
    """A figure with a bold title and a grey subtitle; `height` (inches) is what lies below them."""
    titles = textwrap.wrap(title, width=int(9.5 * width))
    subtitles = textwrap.wrap(subtitle, width=int(16.5 * width - 2))
    heading = 0.17 + 0.24 * len(titles) + 0.17 * len(subtitles)
    total = height + heading
    figure = _Figure(figsize=(width, total), layout="constrained", dpi=DOTS_PER_INCH)
    figure.text(0.1 / width, 1 - 0.1 / total, "\n".join(titles), va="top", size=13, weight="bold")
    figure.text(
        0.1 / width,
        1 - (0.1 + 0.25 * len(titles)) / total,
        "\n".join(subtitles),
        va="top",
        size=8.5,
        color=GREY,
    )
    engine = figure.get_layout_engine()
    assert engine is not None
    engine.set(rect=(0, 0, 1, height / total), w_pad=0.09, h_pad=0.06)  # type: ignore[call-arg]
    return figure


def save(figure: Figure, path: Path, also: Sequence[str] = (), style: str = "screen") -> Path:
    """Write `figure` as a PNG with 150 dots an inch, whole or not at all; return `path`.

    `also` are vector formats, whose files lie beside it under the same name; `style` as in
    `fedexp.core.plots`. For a paper a PNG has 300 dots.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    figure = for_paper(figure) if style == "paper" else figure
    write_atomically(path, png(figure), durable=False)  # it can be drawn again
    for kind in also:
        write_atomically(path.with_suffix(f".{kind}"), vector(figure, kind), durable=False)
    return path


def png(figure: Figure) -> bytes:
    """The figure as a PNG."""
    use_installed_fonts(figure)
    # savefig draws twice, once only to measure; nothing of ours is measured after the first.
    canvas = FigureCanvasAgg(figure)
    try:
        canvas.draw()  # type: ignore[no-untyped-call]
    except ValueError:  # a name with dollar signs is no formula, and need not parse as one
        for text in figure.findobj(Text):
            text.set_parse_math(False)
        canvas.draw()  # type: ignore[no-untyped-call]
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    picture, dots = io.BytesIO(), (figure.dpi, figure.dpi)
    # Nothing shines through; and a fifth of drawing was squeezing what is small anyway.
    Image.fromarray(pixels).convert("RGB").save(picture, "png", dpi=dots, compress_level=1)
    return picture.getvalue()


def vector(figure: Figure, kind: str) -> bytes:
    """The figure as `pdf` or `svg`: the same bytes for the same figure, with text as text in a PDF.

    After `png`, which sees to names that are no formulas and letters that no font has.
    """
    without_a_date = {"pdf": "CreationDate", "svg": "Date"}[kind]
    drawing = io.BytesIO()
    # Fonts of type 42 can be searched, and are what publishers take.
    with rc_context({"pdf.fonttype": 42, "svg.hashsalt": "fedexp"}):
        figure.savefig(drawing, format=kind, metadata={without_a_date: None})
    return drawing.getvalue()


def tidy(axes: Axes, grid: Literal["x", "y", "both"] | None = None) -> Axes:
    """Take away the frame's upper and right sides; `grid` says for which axis to draw lines."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    if grid is not None:
        axes.grid(axis=grid, color="0.9")
    return axes


def legend_below(figure: Figure, axes: Axes) -> None:
    """What the lines of `axes` mean, under the picture, where it covers nothing."""
    # Bars first: matplotlib puts every line before them.
    entries = sorted(
        zip(*axes.get_legend_handles_labels(), strict=True),
        key=lambda entry: not isinstance(entry[0], BarContainer),
    )
    handles, labels = [entry[0] for entry in entries], [entry[1] for entry in entries]
    longest = max(map(len, labels))
    columns = max(1, min(len(labels), int(figure.get_figwidth() * 12 / (longest + 7))))
    # Four entries stand better in two rows of two than as three and one.
    columns = 2 if len(labels) == 4 and columns == 3 else columns
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)


def name_rows(axes: Axes, names: Sequence[str], limit: int = 22) -> None:
    """Name the rows of a matrix, or every k-th of a great many, in `limit` characters each."""
    at, shown, size = _names(names, limit)
    axes.set_yticks(at, shown, fontsize=size)
    axes.tick_params("y", length=0)


def name_columns(axes: Axes, names: Sequence[str], width: float, limit: int = 22) -> None:
    """Name the columns of a matrix; names are slanted if a cell, `width` inches, is too narrow."""
    at, shown, size = _names(names, limit)
    axes.set_xticks(at, shown, fontsize=size)
    if max(map(len, shown)) * size / 110 > width:
        axes.tick_params("x", rotation=40)
        for label in axes.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")
    axes.tick_params("x", length=0)


def short(name: str, limit: int = 22) -> str:
    """`name` in at most `limit` characters, safe to print.

    >>> short("adenocarcinoma of the colon")
    'adenocarcinoma of the…'
    """
    name = name if len(name) <= limit else name[: limit - 1].rstrip() + "…"
    return name.replace("$", r"\$")  # matplotlib would read a formula


def all_short(names: Sequence[str], limit: int = 22) -> list[str]:
    """As `short`, but names that would be cut to the same are cut before they differ.

    >>> all_short(["carcinoma of the left lung, stage 1", "carcinoma of the left lung, stage 2"])
    ['carcinoma of the lef…1', 'carcinoma of the lef…2']
    """
    alike: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        alike.setdefault(short(name, limit), []).append(name)
    shown = {}
    for cut, members in alike.items():
        shown[members[0]] = cut
        if len(members) > 1:
            pairs = zip(min(members), max(members), strict=False)
            same = "".join(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
            words = same.rfind(" ") + 1 or len(same)  # where the word begins in which they differ
            room = max(0, limit - 1 - max(len(name) - words for name in members))
            begin = same[:words][:room].rstrip()
            shown |= {name: short(f"{begin}…{name[words:]}", limit) for name in members}
    return [shown[name] for name in names]


def finite(curve: pd.Series[float]) -> pd.Series[float]:
    """The points of a curve that can be drawn."""
    return curve[np.isfinite(curve.to_numpy())]


@final
class _Figure(Figure):
    """A figure whose axes draw their ticks at once."""

    def add_subplot(self, *args: Any, **kwargs: Any) -> Any:
        return super().add_subplot(*args, **{"axes_class": axes_class(), **kwargs})


def _names(names: Sequence[str], limit: int) -> tuple[range, list[str], int]:
    step = math.ceil(len(names) / _MOST_CLASS_NAMES)
    size = 10 if len(names) <= 12 else 8 if len(names) <= 25 else 7
    shown = all_short(legible(names), limit)[::step]
    return range(0, len(names), step), shown, size
