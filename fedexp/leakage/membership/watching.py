"""The server that watches a run, and keeps of every round what it tells of some examples.

It is told of a round before the record writes a checkpoint of it: whoever goes on from that
checkpoint finds the round here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

from torch import Tensor

from fedexp.core.observer import RunStart
from fedexp.core.round_record import RoundRecord, ServerState
from fedexp.leakage.membership.asked import Asked
from fedexp.leakage.membership.seen import Seen, members_of, write_seen
from fedexp.leakage.victim import Victim


@final
class Watching:
    """An observer; see `fedexp.core.observer`.

    Args:
        victim: the run that is about to start.
        asked: the examples in question.
    """

    def __init__(self, victim: Victim, asked: Asked) -> None:
        self._victim, self._asked = victim, asked
        self._params: Tensor  # [d] that the next round begins with

    def run_started(self, run: RunStart) -> None:
        """Remember the model that goes out first."""
        self._params = run.state.params.clone()

    def round_done(self, state: ServerState, record: RoundRecord) -> None:
        """Keep what the round tells."""
        before, self._params = self._params, state.params.clone()
        if record.received is None:
            return
        seen = Seen.of(
            self._victim,
            self._asked,
            before,
            record.received.matrix,
            members_of(record.received, record.members),
            self._params - before.to(self._params),  # the first one lies where it was made
        )
        write_seen(self._victim.folder, record.round, seen, self._asked)

    def run_ended(self, summary: Mapping[str, Any]) -> None:
        """Nothing is left to do."""
