"""Warnings of libraries: for the log, not for the terminal of somebody who trains a model."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

log = logging.getLogger("fedexp")


@contextmanager
def into_the_log() -> Iterator[None]:
    """Write warnings to the logger `fedexp`, as details; unless Python was started with -W.

    Only how a warning is shown is changed: which ones are shown, or are errors, stays as it is.
    """
    if sys.warnoptions:
        yield
        return
    before = warnings.showwarning
    warnings.showwarning = _to_the_log
    try:
        yield
    finally:
        warnings.showwarning = before


def _to_the_log(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    log.debug("%s:%d: %s: %s", filename, lineno, category.__name__, message)
