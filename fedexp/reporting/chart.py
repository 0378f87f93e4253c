"""A chart of curves for a page: SVG whose colours follow the reader's light or dark, with values.

The numbers are placed here; the template writes the SVG, and a script of the page shows the values
of the round under the pointer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import pandas as pd

from fedexp.reporting.limits import limits_of_interest

WIDTH, HEIGHT = 720, 300
LEFT, RIGHT, TOP, BOTTOM = 72, 16, 12, 48
_COLOURS, _DASHES = 7, 4  # in the page's style sheet; two neighbours differ in both
_TICKS = 5


@final
@dataclass(frozen=True)
class Tick:
    """A mark at an axis: where, and what stands there."""

    at: float
    label: str


@final
@dataclass(frozen=True)
class Line:
    """A curve: its name, its look as a class of the style sheet, its points, its values as JSON."""

    name: str
    look: str
    points: str
    values: str
    last: str


@final
@dataclass(frozen=True)
class Chart:
    """All that a template needs to write it."""

    title: str
    unit: str
    lines: Sequence[Line]
    x: Sequence[Tick]
    y: Sequence[Tick]
    notes: Sequence[str]


def chart(
    title: str,
    unit: str,
    curves: Mapping[str, pd.Series[float]],
    notes: Sequence[str] = (),
    from_zero: bool = False,
) -> Chart | None:
    """A chart of `curves`, each indexed by round; None where there is nothing to draw."""
    drawn = {name: curve[curve.map(math.isfinite)] for name, curve in curves.items()}
    drawn = {name: curve for name, curve in drawn.items() if len(curve)}
    if not drawn:
        return None
    low, high = limits_of_interest(list(drawn.values()))
    low = 0.0 if from_zero else low
    rounds = [int(number) for curve in drawn.values() for number in curve.index]
    first, last = min(rounds), max(rounds)
    across = (WIDTH - LEFT - RIGHT) / max(1, last - first)
    down = (HEIGHT - TOP - BOTTOM) / (high - low)

    # A single round stands in the middle: at the edge half of its dot would be cut off.
    start = LEFT if first < last else (LEFT + WIDTH - RIGHT) / 2

    def x(number: float) -> float:
        return start + (number - first) * across

    def y(value: float) -> float:
        return TOP + (high - value) * down

    def values(curve: pd.Series[float]) -> str:
        at = zip(curve.index.tolist(), curve.tolist(), strict=True)
        return json.dumps([[int(r), round(x(r), 1), float(f"{v:.4g}")] for r, v in at])

    lines = [
        Line(
            name=name,
            look=f"c{k % _COLOURS} d{k % _DASHES}",
            points=" ".join(
                f"{x(r):.1f},{y(v):.1f}"
                for r, v in zip(curve.index.tolist(), curve.tolist(), strict=True)
            ),
            values=values(curve),
            last=f"{curve.iloc[-1]:.4g}",
        )
        for k, (name, curve) in enumerate(drawn.items())
    ]
    outside = any(not curve.between(low, high).all() for curve in drawn.values())
    cut = ["The first rounds lie outside of what is drawn."] if outside else []
    return Chart(
        title,
        unit,
        lines,
        x=[Tick(x(r), f"{r:g}") for r in _ticks(first, last, whole=True)],
        y=[Tick(y(v), f"{v:g}") for v in _ticks(low, high)],
        notes=[*notes, *cut],
    )


def _ticks(low: float, high: float, whole: bool = False) -> list[float]:
    """About five round numbers from `low` to `high`.

    >>> _ticks(1, 20, whole=True)
    [5, 10, 15, 20]
    """
    rough = (high - low) / _TICKS
    if rough <= 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough)
    if whole:
        step = max(1, round(step))
    marks = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    return [round(mark * step, 10) for mark in marks]
