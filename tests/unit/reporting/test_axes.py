"""Axes whose ticks are drawn at once look as matplotlib's own do."""

from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from fedexp.reporting.axes import AxesAtOnce, axes_class

pytestmark = [
    pytest.mark.usefixtures("real_pictures"),
    pytest.mark.skipif(axes_class() is Axes, reason="nobody draws so with this matplotlib"),
]


def line(axes: Axes) -> None:
    axes.plot([1, 2, 3], [0.4, 0.9, 0.91])
    axes.grid(color="0.9")
    axes.set(xlabel="Round", ylabel="Accuracy")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))


def names(axes: Axes) -> None:
    axes.imshow([[0, 1], [2, 3]])
    axes.set_xticks([0, 1], ["a long name", "another\nin two lines"])
    axes.tick_params("x", rotation=40, length=0)
    axes.set_yticks([])


def powers(axes: Axes) -> None:
    axes.plot([1, 10, 900], [1e8, 2e8, 3e8])  # minor ticks, and an exponent above the axis
    axes.set_xscale("log")
    axes.set_title("A title", loc="left")


def pixels(axes_class: type[Axes], draw: Callable[[Axes], None], twice: bool) -> np.ndarray:
    figure = Figure(figsize=(3, 2.4), layout="constrained", dpi=72)
    draw(figure.subplots(subplot_kw={"axes_class": axes_class}))
    canvas = FigureCanvasAgg(figure)
    if twice:  # places and sizes of the first time are kept, and must not be used for another
        canvas.draw()
        figure.axes[0].set_ylim(-3, 5)
        figure.axes[0].tick_params("both", labelsize=7)
        figure.set_size_inches(4, 4)
        canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba(), dtype=float)


@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("draw", [line, names, powers])
def test_the_picture_is_matplotlibs(draw: Callable[[Axes], None], twice: bool) -> None:
    ours, theirs = pixels(AxesAtOnce, draw, twice), pixels(Axes, draw, twice)
    assert ours.std() > 20, "nothing was drawn"
    # A layout may differ by a fraction of a pixel; a label that is missing or elsewhere is above 1.
    assert np.abs(ours - theirs).mean() < 0.25


def test_an_axis_has_one_tick() -> None:
    axes = Figure().subplots(subplot_kw={"axes_class": AxesAtOnce})
    line(axes)
    FigureCanvasAgg(axes.figure).draw()
    assert len(axes.yaxis.majorTicks) == 1
    assert len(axes.get_yticks()) > 3
