"""What a round has to say to a person: its remarks once on the terminal, every time in the log."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, final

from fedexp.core.observer import RunStart, shared_figure
from fedexp.core.round_record import RoundRecord, ServerState

log = logging.getLogger("fedexp")


@final
class RoundLog:
    """Writes every round into the log; warnings in it reach the terminal too."""

    def run_started(self, run: RunStart) -> None:
        """Start with nothing said."""
        self._said: set[str] = set()

    def round_done(self, state: ServerState, record: RoundRecord) -> None:
        """Log the round's notes and its validation accuracy."""
        for note in record.notes:
            level = logging.DEBUG if note in self._said else logging.WARNING
            log.log(level, "round %d: %s", state.round, note)
            self._said.add(note)
        accuracy = shared_figure(record.metrics, "validation", "accuracy")
        measured = "not evaluated" if accuracy is None else f"validation accuracy {accuracy:.4f}"
        log.debug("round %d, %s", state.round, measured)

    def run_ended(self, summary: Mapping[str, Any]) -> None:
        """Nothing to add."""
