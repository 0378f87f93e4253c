"""Axes whose ticks are drawn at once.

matplotlib makes five artists for every tick, lays its label out four times before a picture is
done, and asks again where ticks are whenever something asks how large an axis is. Here an axis has
one tick: its lines stand at all places together, its label is painted at one place after the other,
and what a label measures is kept. The picture is the same to a fraction of a pixel
(tests/unit/reporting/test_axes.py; docs/decisions/042).

`get_xticklabels()` of such axes gives that one label, so none can look unlike the others.

What is overridden is private to matplotlib, so only releases that the test has seen get such axes;
with any other, `axes_class` gives matplotlib's own, which look the same and take longer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis, Tick, XAxis, XTick, YAxis, YTick
from matplotlib.backend_bases import RendererBase
from matplotlib.text import Text
from matplotlib.ticker import NullLocator
from matplotlib.transforms import Bbox

RELEASES = ("3.11.",)


class _Ticks(Tick):
    """All ticks of an axis, the major or the minor ones.

    Attributes:
        across: which coordinate of a point lies across the axis, 1 for an x axis.
    """

    across: int
    _places = np.empty(0)
    _words: Sequence[str] = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._measured: dict[tuple[object, ...], Bbox] = {}

    def stand_at(self, places: np.ndarray, words: Sequence[str]) -> None:
        """Places along the axis in data coordinates, and what is written there."""
        self._places, self._words = places, words

    def draw(self, renderer: RendererBase) -> None:
        ends = np.repeat(self._places, 3)
        ends[2::3] = np.nan  # the pen is lifted between two lines of the grid
        self._draw_line(self.gridline, ends, np.tile([0, 1, 0], len(self._places)), renderer)
        for line, edge in ((self.tick1line, 0), (self.tick2line, 1)):
            self._draw_line(line, self._places, np.full(len(self._places), edge), renderer)
        for label in (self.label1, self.label2):
            if label.get_visible():
                for place, word in zip(self._places, self._words, strict=True):
                    self._write(label, place, word)
                    label.draw(renderer)

    def boxes(self, label: Text, renderer: RendererBase) -> list[Bbox]:
        """What the labels cover, in pixels."""
        if not (label.get_visible() and label.get_in_layout()):
            return []
        corners = np.full((len(self._places), 2), float(label.get_position()[self.across]))
        corners[:, 1 - self.across] = self._places
        root = label.get_figure(root=True)
        look = (*label.get_fontfamily(), label.get_fontsize(), label.get_fontweight())
        look = (*look, label.get_rotation(), label.get_rotation_mode(), root.dpi if root else 0)
        look = (*look, label.get_horizontalalignment(), label.get_verticalalignment())
        found = []
        for place, word, (x, y) in zip(
            self._places, self._words, label.get_transform().transform(corners), strict=True
        ):
            if (word, look) not in self._measured:
                self._write(label, place, word)
                box = label.get_window_extent(renderer)
                self._measured[word, look] = box.translated(-x, -y)
            found.append(self._measured[word, look].translated(x, y))
        return found

    def _write(self, label: Text, place: float, word: str) -> None:
        (label.set_x if self.across else label.set_y)(place)
        label.set_text(word)

    def _draw_line(self, line: Any, along: np.ndarray, at: np.ndarray, to: RendererBase) -> None:
        if line.get_visible():
            line.set_data(*((along, at) if self.across else (at, along)))
            line.draw(to)


@final
class _XTicks(_Ticks, XTick):
    across = 1


@final
class _YTicks(_Ticks, YTick):
    across = 0


class _AxisAtOnce(Axis):
    """What matplotlib asks an axis about its ticks, answered by the one that stands for all."""

    _placed: tuple[tuple[object, ...], list[Tick]] = ((), [])
    _minor: list[Tick] | None = None

    @property
    def minorTicks(self) -> list[Tick]:  # type: ignore[override]
        """None are made where none are shown, whatever is set about them."""
        if isinstance(self.minor.locator, NullLocator | None):
            return []
        if self._minor is None:
            self._minor = [self._get_tick(major=False)]  # type: ignore[attr-defined]
        return self._minor

    def _update_ticks(self) -> list[Tick]:
        state = self._state()
        if state != self._placed[0]:
            self._placed = state, self._place_ticks()
        return self._placed[1]

    def _state(self) -> tuple[object, ...]:
        """What decides where ticks are and what is written there."""
        size = self.get_tick_params(which="major").get("labelsize")
        return (
            *self.get_view_interval(),
            *self.axes.bbox.size,
            *(size, self.get_scale()),
            *(self.get_major_locator(), self.get_major_formatter()),
            *(self.get_minor_locator(), self.get_minor_formatter()),
        )

    def _place_ticks(self) -> list[Tick]:
        drawn = []
        for locator, formatter, places, which in (
            (self.get_major_locator(), self.get_major_formatter(), self.get_majorticklocs, "major"),
            (self.get_minor_locator(), self.get_minor_formatter(), self.get_minorticklocs, "minor"),
        ):
            if isinstance(locator, NullLocator):
                continue
            at = np.asarray(places(), dtype=np.float64)
            words = formatter.format_ticks(at.tolist())
            inside = self._in_view(at)
            ticks = getattr(self, f"{which}Ticks")[0]
            ticks.stand_at(at[inside], [w for w, seen in zip(words, inside, strict=True) if seen])
            drawn += [ticks] if inside.any() else []
        return drawn

    def _get_ticklabel_bboxes(
        self, ticks: Sequence[_Ticks], renderer: RendererBase
    ) -> tuple[list[Bbox], list[Bbox]]:
        below = [box for tick in ticks for box in tick.boxes(tick.label1, renderer)]
        above = [box for tick in ticks for box in tick.boxes(tick.label2, renderer)]
        return below, above

    def _in_view(self, places: np.ndarray) -> np.ndarray:
        """Which places the axis shows, give or take a rounding."""
        view = np.asarray(self.get_transform().transform(np.array(self.get_view_interval())))
        at = np.asarray(self.get_transform().transform(places))
        slack = 1e-10 * np.ptp(view)
        inside: np.ndarray = (at >= view.min() - slack) & (at <= view.max() + slack)
        return inside


@final
class _XAxis(_AxisAtOnce, XAxis):
    _tick_class = _XTicks


@final
class _YAxis(_AxisAtOnce, YAxis):
    _tick_class = _YTicks


@final
class AxesAtOnce(Axes):
    """What `fedexp.reporting.figures.new_figure` has in place of matplotlib's."""

    _around: tuple[list[object], np.ndarray] | None = None  # what was measured: margins in pixels

    def get_tightbbox(
        self, renderer: RendererBase | None = None, *, for_layout_only: bool = False, **more: Any
    ) -> Bbox | None:
        """As matplotlib's; a layout's second pass measures only axes whose words are others now."""
        if not for_layout_only or not self.get_visible():
            return super().get_tightbbox(renderer, for_layout_only=for_layout_only, **more)
        self.apply_aspect()
        state = [*self.figure.bbox.size, *_written(self.xaxis), *_written(self.yaxis)]
        if self._around is None or self._around[0] != state:
            box = super().get_tightbbox(renderer, for_layout_only=True, **more)
            assert box is not None
            self._around = state, box.get_points() - self.bbox.get_points()
        return Bbox(self.bbox.get_points() + self._around[1])

    def _init_axis(self) -> None:
        self.xaxis, self.yaxis = _XAxis(self, clear=False), _YAxis(self, clear=False)
        for axis, sides in ((self.xaxis, ("bottom", "top")), (self.yaxis, ("left", "right"))):
            for side in sides:
                self.spines[side].register_axis(axis)
                self.spines[side].set_in_layout(False)  # they lie on the edge of the axes


def _written(axis: Any) -> list[object]:
    """What stands at an axis, and how large: an axis where it is the same is as wide as it was."""
    words = [word for ticks in axis._update_ticks() for word in ticks._words]
    return [axis.get_tick_params().get("labelsize"), axis.offsetText.get_text(), *words]


def axes_class(release: str = matplotlib.__version__) -> type[Axes]:
    """The axes to draw with under a release of matplotlib.

    >>> axes_class("3.9.2").__module__
    'matplotlib.axes._axes'
    """
    return AxesAtOnce if release.startswith(RELEASES) else Axes
