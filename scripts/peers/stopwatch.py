"""`tracker=stopwatch`: a run of fedexp says what the other contestants say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

from fedexp.core.observer import RunStart, shared_figure
from fedexp.core.round_record import RoundRecord, ServerState
from peers.shared import Rounds, finish


@final
class Stopwatch:
    """Seconds from round to round, the record's writing included, the evaluation left out."""

    def __init__(self) -> None:
        self._rounds = Rounds()
        self._accuracy = 0.0

    def run_started(self, run: RunStart) -> None:
        """The first round starts now."""
        self._rounds.begin()

    def round_done(self, state: ServerState, record: RoundRecord) -> None:
        """A line."""
        self._rounds.done(besides=record.seconds.get("evaluate", 0.0))
        self._accuracy = shared_figure(record.metrics, "test", "accuracy") or self._accuracy

    def run_ended(self, summary: Mapping[str, Any]) -> None:
        """The last line."""
        finish(self._accuracy, "fedexp", "torch")
