"""A sign of life while a command cannot speak of the run itself: what it prepares.

The libraries alone take seconds on a cold disk. On a terminal one line on stderr says what is going
on and is wiped away in the end. Where stderr is no terminal nobody waits for it, and nothing is
said: stdout belongs to the answer, and stderr to the one line that refuses bad input. In a script
of one's own, and in tests, `say` prints nothing.
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


_shown: _Nobody | _Terminal = _Nobody()


def show_preparation(command: str, arguments: Sequence[str]) -> None:
    """Let a person see from here on what is being prepared, if the command takes long to begin."""
    global _shown
    asked = {argument.partition("=")[0] for argument in arguments}
    silent = asked.intersection(_QUESTIONS) or _QUIET in arguments or not sys.stderr.isatty()
    if command not in COMMANDS or silent:
        return
    _shown = _Terminal()
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


def pause() -> None:
    """There is something else to say for now, by this process; more may be prepared later."""
    _shown.over()


def over() -> None:
    """It is over: from here on others speak, maybe from several processes."""
    global _shown
    _shown.over()
    _shown = _Nobody()
