"""The reports of a run from a process of their own, which has imported what they take beforehand.

It writes nothing but what it is asked for, and ends with the process that asks.
"""

from __future__ import annotations

import logging
import os
from multiprocessing.connection import Connection
from pathlib import Path
from typing import final

from fedexp.core.plots import Plots


def write_reports(asked: Connection) -> None:
    """Answer each folder and its `Plots` with the report in short.

    With None where anything is amiss: who asked then writes the report, and hears of it.
    """
    import fedexp.reporting.plots  # noqa: F401 - matplotlib and pandas, before they are needed

    try:
        while True:
            folder, plots = asked.recv()
            asked.send(_report_or_none(folder, plots))
    except (EOFError, OSError):  # who asks has gone
        os._exit(0)  # at once: to take down what was imported takes as long as a picture


def _report_or_none(folder: Path, plots: Plots) -> str | None:
    from fedexp.reporting.run_report import report_run

    heard, log = _Heard(logging.WARNING), logging.getLogger("fedexp")
    log.addHandler(heard)
    try:
        text = report_run(folder, plots.draw, also=plots.also, style=plots.style)
    except Exception:
        return None
    finally:
        log.removeHandler(heard)
    return None if heard.anything else text


@final
class _Heard(logging.Handler):
    """Whether somebody was to be told something."""

    anything = False

    def emit(self, record: logging.LogRecord) -> None:
        """Something is told."""
        self.anything = True
