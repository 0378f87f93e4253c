"""What a person sees while a run goes on: a bar on a terminal, plain lines when piped, or nothing.

Only validation figures are shown: the test part is for the report.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any, final

from tqdm import tqdm

from fedexp.core.observer import Observer, RunStart, shared_figure
from fedexp.core.round_record import RoundRecord, ServerState

LINE_EVERY = 1.0  # seconds between plain lines, so that a log stays readable


def progress_for(quiet: bool) -> Observer:
    """The display that fits where the output goes."""
    if quiet:
        return Silent()
    return Bar() if sys.stderr.isatty() else Lines()


@final
class Silent:
    """Shows nothing."""

    def run_started(self, run: RunStart) -> None:
        """Nothing to show."""

    def round_done(self, state: ServerState, record: RoundRecord) -> None:
        """Nothing to show."""

    def run_ended(self, summary: Mapping[str, Any]) -> None:
        """Nothing to show."""


@final
class Bar:
    """A bar on stderr, with the last validation accuracy behind it."""

    def run_started(self, run: RunStart) -> None:
        """Show the bar, as far as the run is already."""
        self._bar: Any = tqdm(
            total=run.config["rounds"],
            initial=run.state.round,
            unit="round",
            dynamic_ncols=True,
        )

    def round_done(self, state: ServerState, record: RoundRecord) -> None:
        """Move it."""
        accuracy = shared_figure(record.metrics, "validation", "accuracy")
        if accuracy is not None:
            self._bar.set_postfix_str(f"validation accuracy {accuracy:.3f}", refresh=False)
        self._bar.update()

    def run_ended(self, summary: Mapping[str, Any]) -> None:
        """Leave it as it is, and a new line."""
        self._bar.close()


@final
class Lines:
    """A plain line a second at most, and one for the last round."""

    def run_started(self, run: RunStart) -> None:
        """Remember when."""
        self._rounds, self._started, self._last = run.config["rounds"], time.monotonic(), 0.0
        self._measured = ""

    def round_done(self, state: ServerState, record: RoundRecord) -> None:
        """Print the line, if it is time for one."""
        accuracy = shared_figure(record.metrics, "validation", "accuracy")
        if accuracy is not None:
            self._measured = f"  validation accuracy {accuracy:.3f}"
        now = time.monotonic()
        if now - self._last < LINE_EVERY and state.round < self._rounds:
            return
        self._last = now
        seconds = now - self._started
        line = f"round {state.round:>4}/{self._rounds}{self._measured}  {seconds:.1f} s"
        print(line, flush=True)

    def run_ended(self, summary: Mapping[str, Any]) -> None:
        """The report comes next."""
