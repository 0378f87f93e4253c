"""What cannot be written is said, and stops nobody from reading."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedexp.core.checks import InputError

log = logging.getLogger("fedexp")


@contextmanager
def as_far_as_possible(folder: Path, asked_for: bool = False) -> Iterator[None]:
    """Say what cannot be written, and go on: figures are for reading in the first place.

    Args:
        folder: that is written to.
        asked_for: whether it was named to be written to, which nothing else is in the place of.

    Raises:
        InputError: `asked_for`, and it cannot be written.
    """
    try:
        yield
    except OSError as problem:
        said = f"cannot write to {folder}: {problem.strerror or problem}"
        if asked_for:
            raise InputError(said) from problem
        log.warning("%s", said)
