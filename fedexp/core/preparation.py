"""The first sign of life: what a command prepares, until it can speak of the run itself.

The libraries alone take seconds on a cold disk. On a terminal one line on stderr says what is going
on and is wiped away in the end; where output is piped, a plain line stands on stdout once, because
stderr belongs to the one line that refuses bad input. Nobody but the command itself is shown
anything: in a script of one's own, and in tests, `say` prints nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

WIPE = "\r\x1b[2K"
COMMANDS = ("run", "resume", "rerun", "leakage", "detect", "report")
"""Those that load the libraries."""

_QUESTIONS = ("-h", "--help", "--hydra-help", "--version", "-c", "--cfg", "-i", "--info", "-sc")
_QUIET = "quiet=true"


class _Nobody:
    """Shows nothing."""

    def say(self, what: str) -> None:
        """Nothing."""

    def over(self) -> None:
        """Nothing to wipe away."""


class _Terminal:
    """One line on stderr, which is wiped away."""

    def say(self, what: str) -> None:
        print(f"{WIPE}preparing: {what} ...", end="", file=sys.stderr, flush=True)

    def over(self) -> None:
        print(WIPE, end="", file=sys.stderr, flush=True)


class _Pipe(_Nobody):
    """One line on stdout, the first time."""

    def say(self, what: str) -> None:
        global _shown
        print(f"preparing: {what} ...", flush=True)
        _shown = _Nobody()


_shown: _Nobody | _Terminal = _Nobody()


def show_preparation(command: str, arguments: Sequence[str]) -> None:
    """Let a person see from here on what is being prepared, if the command takes long to begin."""
    global _shown
    asked = {argument.partition("=")[0] for argument in arguments}
    if command not in COMMANDS or asked.intersection(_QUESTIONS) or _QUIET in arguments:
        return
    _shown = _Terminal() if sys.stderr.isatty() else _Pipe()
    say("libraries")


@contextmanager
def wiped_away() -> Iterator[None]:
    """Nothing of it is left on the screen, however the work ends."""
    try:
        yield
    finally:
        over()


def say(what: str) -> None:
    """What is being prepared now."""
    _shown.say(what)


def over() -> None:
    """It is over, as there is something else to say."""
    global _shown
    _shown.over()
    _shown = _Nobody()
