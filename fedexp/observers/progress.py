"""What a person sees while a run goes on: a bar on a terminal, plain lines when piped, or nothing.

Only validation figures are shown: the test part is for the report.
"""

from __future__ import annotations

import sys
import time
from typing import Any, Protocol

from tqdm import tqdm

LINE_EVERY = 1.0  # seconds between plain lines, so that a log stays readable


class Progress(Protocol):
    """Told about every round."""

    def round_done(self, round: int, accuracy: float) -> None:
        """Round `round` (from 1) is done; `accuracy` is the last on validation, or NaN."""

    def close(self) -> None:
        """The run is over."""


def progress_for(rounds: int, done: int, quiet: bool) -> Progress:
    """The display that fits where the output goes."""
    if quiet:
        return _Silent()
    return _Bar(rounds, done) if sys.stderr.isatty() else _Lines(rounds)


class _Silent:
    def round_done(self, round: int, accuracy: float) -> None:
        pass

    def close(self) -> None:
        pass


class _Bar:
    def __init__(self, rounds: int, done: int) -> None:
        self._bar: Any = tqdm(total=rounds, initial=done, unit="round", dynamic_ncols=True)

    def round_done(self, round: int, accuracy: float) -> None:
        if accuracy == accuracy:
            self._bar.set_postfix_str(f"validation accuracy {accuracy:.3f}", refresh=False)
        self._bar.update()

    def close(self) -> None:
        self._bar.close()


class _Lines:
    def __init__(self, rounds: int) -> None:
        self._rounds, self._started, self._last = rounds, time.monotonic(), 0.0

    def round_done(self, round: int, accuracy: float) -> None:
        now = time.monotonic()
        if now - self._last < LINE_EVERY and round < self._rounds:
            return
        self._last = now
        measured = f"  validation accuracy {accuracy:.3f}" if accuracy == accuracy else ""
        print(f"round {round:>4}/{self._rounds}{measured}  {now - self._started:.1f} s", flush=True)

    def close(self) -> None:
        pass
