"""Whom a command answers: a person, who reads text, or a program (`--json`), which gets a document.

A program gets exactly one JSON document on stdout, its own refusals too, and nothing else; what a
person would read on the way goes to stderr. Every document says what it is: `schema` names a file
of `fedexp/schemas/`, which allows no key that it does not know (docs/scripts.md). JSON has no
NaN and no infinity: both are null.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any, Protocol

from fedexp.core.checks import InputError
from fedexp.core.files import to_json
from fedexp.core.text import printable

OPTION = "--json"
Document = Callable[[], Mapping[str, Any]]


class Asker(Protocol):
    """Who has given the command."""

    def answer(self, text: str, document: Document) -> None:
        """Take the answer, as text or as a document."""

    def end(self) -> None:
        """Hear that there is no more."""

    def refuse(self, reason: InputError) -> None:
        """Hear why there is no answer."""

    def broken_off(self, reason: str) -> None:
        """Hear that the work was broken off; what else is said of it goes to stderr."""

    def leave(self) -> None:
        """Be gone already: what is still written goes nowhere."""


class Person:
    """Reads text, as it comes."""

    def __init__(self) -> None:
        self._stdout = sys.stdout

    def answer(self, text: str, document: Document) -> None:
        """Print the text, if there is any."""
        if text:
            print(text)

    def end(self) -> None:
        """Have it all written now, where a reader that has gone is dealt with."""
        sys.stdout.flush()

    def refuse(self, reason: InputError) -> None:
        """One line on stderr."""
        line = " ".join(str(reason).splitlines())
        print(f"fedexp: {printable(line)}", file=sys.stderr)

    def broken_off(self, reason: str) -> None:
        """Nothing: a person sees it."""

    def leave(self) -> None:
        """Have the end of the process flush into nothing."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), self._stdout.fileno())


class Program(Person):
    """Reads one document at the end."""

    def __init__(self) -> None:
        super().__init__()
        self._document: Mapping[str, Any] | None = None

    def answer(self, text: str, document: Document) -> None:
        """Keep the document; a later one takes its place, and has it in it."""
        self._document = document()

    def end(self) -> None:
        """Write it.

        Raises:
            InputError: nothing was answered that has a document.
        """
        if self._document is None:
            raise InputError("there is no document for this; see docs/scripts.md", OPTION, "")
        self._write(self._document)

    def refuse(self, reason: InputError) -> None:
        """The same line on stderr, and a document that says it in its pieces."""
        super().refuse(reason)
        self._write(_error(reason))

    def broken_off(self, reason: str) -> None:
        """A document that says so, where the answer is not out yet."""
        self._write(_error(InputError(reason)))

    def _write(self, document: Mapping[str, Any]) -> None:
        self._stdout.write(to_json(document, indent=1).decode())
        self._stdout.flush()


_asker: Asker = Person()


@contextmanager
def answering(arguments: Sequence[str]) -> Iterator[tuple[Asker, list[str]]]:
    """Who asks, and the command line without the word that says so."""
    global _asker
    before, rest = _asker, [word for word in arguments if word != OPTION]
    if len(rest) == len(arguments):
        _asker = Person()
        try:
            yield _asker, rest
        finally:
            _asker = before
        return
    _asker = Program()
    try:
        with redirect_stdout(sys.stderr):
            yield _asker, rest
    finally:
        _asker = before


def answer(text: str, document: Document) -> None:
    """Answer whoever asks.

    Args:
        text: for a person; empty for a person who wants none.
        document: makes it, if it is wanted; its `schema` says what it is, e.g. "run/1".
    """
    _asker.answer(text, document)


def _error(reason: InputError) -> dict[str, Any]:
    value = reason.value
    said = value if value is None or isinstance(value, bool | int | float | str) else str(value)
    return {
        "schema": "error/1",
        "error": {"reason": " ".join(reason.reason.split()), "key": reason.key, "value": said},
    }
