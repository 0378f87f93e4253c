"""Figures for a paper: as wide as one column or two, in letters that can be read there.

A figure is composed once, for a screen, and is changed here as a whole: smaller, without its
heading, for a paper has a caption, with lines and letters that shrink less than the picture does.
Widths are those of IEEE's two columns, 3.5 and 7.16 inches; ACM's, Springer's and Elsevier's are
within a few per cent of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text
from matplotlib.transforms import Affine2D, Bbox

from fedexp.reporting.numbers import Numbers

COLUMN, BOTH_COLUMNS = 3.5, 7.16  # inches
DOTS_PER_INCH = 300
_ONE_COLUMN = 7.5  # inches on a screen; what is wider needs both columns
_LEAST = 2.2  # inches of height beside the legend, or an axis's name is longer than the axis
_SQUARE = 0.9  # of the height where cells are square: at full height no room is left for names
_PAD = 0.03  # inches around everything
_HANDLE = 7  # letters that a legend's line and its gaps take
_SMALLEST = 0.72  # letters of 10 points become 7.2


def for_paper(figure: Figure) -> Figure:
    """The figure, changed in place."""
    width, height = figure.get_size_inches()
    engine = figure.get_layout_engine()
    assert engine is not None
    below_heading = height * engine.get()["rect"][3]
    target = COLUMN if width <= _ONE_COLUMN else BOTH_COLUMNS
    scale = min(1.0, target / width)
    letters = max(scale, _SMALLEST)
    for text in list(figure.texts):
        text.remove()
    for axes in figure.axes:
        _shrink(axes, scale, letters)
    rows = sum([_legend_again(figure, legend, target, letters) for legend in list(figure.legends)])
    figure.set_dpi(DOTS_PER_INCH)
    below = max(below_heading * scale, _LEAST)
    square = [axes for axes in figure.axes if axes.get_aspect() != "auto"]
    figure.set_size_inches(target, below * (_SQUARE if square else 1) + 0.15 * rows + 0.1)
    engine.set(rect=(0, 0, 1, 1), w_pad=_PAD, h_pad=_PAD)  # type: ignore[call-arg]
    figure.draw_without_rendering()  # a layout starts from the one before, which was larger
    if square:
        _as_high_as_wide(figure, square)
    return figure


def _as_high_as_wide(figure: Figure, square: Sequence[Axes]) -> None:
    """Give cells that stay square the height at which nothing is left beside them."""
    width, height = figure.get_size_inches()
    # Twice the pads: the layout centres square cells without their names, which reach out.
    spare = width - figure.get_tightbbox().width - 4 * _PAD
    cells = Bbox.union([axes.get_window_extent() for axes in square])
    figure.set_size_inches(width, height + max(spare, 0) * cells.height / cells.width)
    figure.draw_without_rendering()


def _shrink(axes: Axes, scale: float, letters: float) -> None:
    for axis in (axes.xaxis, axes.yaxis):
        sizes = [float(label.get_fontsize()) for label in axis.get_ticklabels()]
        axis.set_tick_params(labelsize=max(sizes, default=10.0) * letters, pad=2)
        axis.labelpad *= scale
    for text in _words(axes):
        text.set_fontsize(float(text.get_fontsize()) * letters)
    for line in axes.lines:
        line.set_linewidth(line.get_linewidth() * letters)
        line.set_markersize(line.get_markersize() * letters)
    for numbers in axes.collections:
        if isinstance(numbers, Numbers):  # as large as the cells that they stand in
            figure = axes.get_figure(root=True)
            assert figure is not None
            numbers.set_transform(Affine2D().scale(scale / 72) + figure.dpi_scale_trans)


def _words(axes: Axes) -> Iterator[Text]:
    """The texts of axes but for their ticks."""
    yield from (axes.xaxis.label, axes.yaxis.label)
    yield from (axes.xaxis.get_offset_text(), axes.yaxis.get_offset_text())
    yield from (child for child in axes.get_children() if isinstance(child, Text))


def _legend_again(figure: Figure, legend: Legend, width: float, letters: float) -> int:
    """Lay a legend out anew for a width in inches; how many rows it has."""
    handles = [handle for handle in legend.legend_handles if handle is not None]
    names = [text.get_text() for text in legend.get_texts()]
    columns = columns_of(names, int(width * 13 / letters))
    legend.remove()
    figure.legend(
        handles,
        names,
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=10 * letters,
        handlelength=1.8,
        columnspacing=1.2,
    )
    return -(-len(names) // columns)


def columns_of(names: Sequence[str], room: int) -> int:
    """In how many columns a legend of names fits beside so many letters.

    >>> names = ["a", "b", "one that is long"]
    >>> columns_of(names, 40), columns_of(names, 38), columns_of(names, 5)
    (3, 2, 1)
    """
    for columns in range(len(names), 1, -1):
        rows = -(-len(names) // columns)
        widths = (max(map(len, names[k : k + rows])) for k in range(0, len(names), rows))
        if sum(width + _HANDLE for width in widths) <= room:
            return -(-len(names) // rows)  # 5 in 4 columns are 2 rows, for which 3 will do
    return 1
