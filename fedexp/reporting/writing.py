"""What cannot be written is said, and stops nobody from reading."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger("fedexp")


@contextmanager
def as_far_as_possible(folder: Path) -> Iterator[None]:
    """Say what cannot be written, and go on: figures are for reading in the first place."""
    try:
        yield
    except OSError as problem:
        log.warning("cannot write to %s: %s", folder, problem.strerror or problem)
