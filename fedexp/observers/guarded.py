"""A tracker may fail, the run may not: its first error is said once, and it is told no more."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, final

from fedexp.core.observer import Observer, RunStart
from fedexp.core.types import RoundRecord, ServerState

log = logging.getLogger("fedexp")


@final
class Guarded:
    """An observer whose errors, and whose opinions, change nothing about the run.

    Args:
        name: of the observer, for the warning.
        observer: that may fail.
    """

    ends_no_run = True

    def __init__(self, name: str, observer: Observer) -> None:
        self._name, self._observer = name, observer
        self._broken = False

    @property
    def sends_to(self) -> str:
        """Where figures go beside the run folder; empty for nowhere, or where nobody says so."""
        return str(getattr(self._observer, "sends_to", ""))

    def run_started(self, run: RunStart) -> None:
        """Pass it on."""
        self._broken = False
        self._tell(lambda: self._observer.run_started(run))

    def round_done(self, state: ServerState, record: RoundRecord) -> None:
        """Pass it on."""
        self._tell(lambda: self._observer.round_done(state, record))

    def run_ended(self, summary: Mapping[str, Any]) -> None:
        """Pass it on."""
        self._tell(lambda: self._observer.run_ended(summary))

    def _tell(self, tell: Callable[[], object]) -> None:
        if self._broken:
            return
        try:
            tell()
        except Exception as error:
            self._broken = True
            reason = " ".join(str(error).split()) or "no reason given"
            log.warning(
                "tracker=%s has failed and is left out from here on (%s: %s)",
                self._name,
                type(error).__name__,
                reason,
            )
            log.debug("the tracker's error:", exc_info=True)
