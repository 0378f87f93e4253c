"""What tests ask of a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from fedexp.reporting.numbers import Numbers


@pytest.fixture(autouse=True)
def blank_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are composed and written, but not drawn, which takes longer than all else.

    Who looks at one asks for `real_pictures`. Of the folders whose `conftest.py` imports this.
    """
    if "real_pictures" not in request.fixturenames:
        monkeypatch.setattr(FigureCanvasAgg, "draw", FigureCanvasAgg.get_renderer)


@pytest.fixture
def real_pictures() -> None:
    """Pictures are drawn."""


def drawn(path: Path) -> bool:
    """Whether the picture holds more than an empty figure."""
    pixels = np.asarray(Image.open(path).convert("L"), dtype=float)
    return min(pixels.shape) > 150 and pixels.std() > 8


def cells(figure: Figure) -> list[str]:
    """What stands in the cells of a matrix, row by row."""
    (numbers,) = figure.axes[0].collections
    assert isinstance(numbers, Numbers)
    return list(numbers.words)


def legend(figure: Figure) -> str:
    """The lines of a figure's legends."""
    return "\n".join(text.get_text() for item in figure.legends for text in item.get_texts())


def written_at(axis: Axis) -> list[str]:
    """What stands at the ticks of an axis."""
    return axis.get_major_formatter().format_ticks(axis.get_majorticklocs())
