"""Which way a validation metric is better."""

from __future__ import annotations

from typing import Literal

Direction = Literal["maximize", "minimize"]
LOW_IS_GOOD = frozenset({"loss"})


def direction_of(metric: str) -> Direction:
    """In a sweeper's words.

    >>> direction_of("accuracy"), direction_of("loss")
    ('maximize', 'minimize')
    """
    return "minimize" if metric in LOW_IS_GOOD else "maximize"
