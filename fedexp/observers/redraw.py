"""Plots that are drawn anew while a run goes on, so that a long one can be looked at."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, final

from fedexp.core.observer import RunStart
from fedexp.core.round_record import RoundRecord, ServerState

REDRAW_AFTER = 60.0  # seconds between drawings


@final
class Redraw:
    """Calls `draw` after a round, if the last drawing is long ago."""

    def __init__(self, draw: Callable[[], object]) -> None:
        self._draw = draw

    def run_started(self, run: RunStart) -> None:
        """There is nothing to draw yet."""
        self._drawn = time.monotonic()

    def round_done(self, state: ServerState, record: RoundRecord) -> None:
        """Draw, if it is time."""
        if time.monotonic() - self._drawn > REDRAW_AFTER:
            self._draw()
            self._drawn = time.monotonic()

    def run_ended(self, summary: Mapping[str, Any]) -> None:
        """The report draws the final ones."""
