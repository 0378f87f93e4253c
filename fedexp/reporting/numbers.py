"""Numbers in the cells of a matrix, all of them drawn at once.

A Text for each is measured, laid out and painted by itself: two hundred of them took a third of
the time that all pictures of a small run take. Here the outline of each different word is made
once a process, and a collection puts them where they belong.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.path import Path
from matplotlib.textpath import TextPath
from matplotlib.transforms import Affine2D

_DARK = 0.55  # a shade above it needs white letters
_LINE = 1.25  # of the letters' size, from one line to the next


@final
class Numbers(PathCollection):
    """What stands in the cells of a matrix.

    Attributes:
        words: of every cell, row by row.
    """

    words: tuple[str, ...]


def number_cells(
    axes: Axes, words: Sequence[Sequence[str]], darkness: np.ndarray, size: float
) -> Numbers:
    """Write `words[row][column]` into the cells of a matrix that `imshow` draws.

    Args:
        axes: of the matrix.
        words: of each cell, in one line or several.
        darkness: `[rows, columns]` of the cells' shades, from 0 (white) to 1.
        size: of the letters in points.
    """
    flat = tuple(word for row in words for word in row)
    places = [(column, row) for row, cells in enumerate(words) for column in range(len(cells))]
    colours = ["white" if shade > _DARK else "black" for shade in np.ravel(darkness)]
    figure = axes.get_figure(root=True)
    assert figure is not None
    numbers = Numbers(
        [_outline(word, size) for word in flat],
        offsets=places,
        offset_transform=axes.transData,
        facecolors=colours,
        linewidths=0,
    )
    numbers.set_transform(Affine2D().scale(1 / 72) + figure.dpi_scale_trans)
    numbers.words = flat
    numbers.set_in_layout(False)
    axes.add_collection(numbers, autolim=False)
    return numbers


@lru_cache(maxsize=8192)
def _outline(word: str, size: float) -> Path:
    """The outline of one or more lines in points, its middle at (0, 0)."""
    lines = word.split("\n")
    placed = []
    for k, line in enumerate(lines):
        path = TextPath((0, 0), line, size=size)
        width = path.get_extents().x1 if line.strip() else 0.0
        middle = _LINE * size * ((len(lines) - 1) / 2 - k) - 0.36 * size  # of a digit's height
        placed.append(path.transformed(Affine2D().translate(-width / 2, middle)))
    return Path.make_compound_path(*placed)
