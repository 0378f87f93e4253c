"""A tracker or an early stopping looks at copies: what it writes to is nobody else's."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, final

from fedexp.core.observer import Observer, RunStart
from fedexp.core.round_record import RoundRecord, ServerState


@final
@dataclass(frozen=True)
class Guest:
    """An observer that cannot change the run by what it is shown; its answers are passed on.

    Args:
        guest: the observer, the user's own, it may be.
    """

    guest: Observer

    def run_started(self, run: RunStart) -> str | None:
        """Pass a copy on."""
        config, about = deepcopy(run.config), deepcopy(run.about)
        return self.guest.run_started(
            replace(run, config=config, about=about, state=run.state.copied())
        )

    def round_done(self, state: ServerState, record: RoundRecord) -> str | None:
        """Pass a copy of the state on; a record is not to be written to as it is."""
        return self.guest.round_done(state.copied(), record)

    def run_ended(self, summary: Mapping[str, Any]) -> None:
        """Pass a copy on."""
        self.guest.run_ended(deepcopy(summary))
