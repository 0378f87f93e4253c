"""Who writes a run's report: a process that imports what that takes while the rounds are made.

pandas and matplotlib take a second to import, a tenth of a short run, and 150 MB. Where they are
here already, where no core is to spare or no process can be had, this process writes the report.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from fedexp.backends.launch import have_a_tracker, main_left_out, signals_held_back
from fedexp.core.cores import cores_to_spare
from fedexp.core.plots import Plots
from fedexp.reporting.apart import write_reports

log = logging.getLogger("fedexp")

Draw = Callable[[Path, Plots], str]
"""Writes the report and plots of the run in a folder; gives the report in short."""


def draw(folder: Path, plots: Plots) -> str:
    """In this process. What was measured is safe already, so a full disk here only says so."""
    from fedexp.reporting.run_report import report_run

    try:
        return report_run(folder, plots.draw, also=plots.also, style=plots.style)
    except OSError as problem:
        log.warning("the plots could not be written: %s", problem)
        return f"results: {folder}"


@contextmanager
def drawing(plots: Plots) -> Iterator[Draw]:
    """Who draws, until the end of the block."""
    if not plots.draw or "matplotlib" in sys.modules or cores_to_spare() < 2:
        yield draw
        return
    ours, theirs = get_context("spawn").Pipe()
    writer = get_context("spawn").Process(target=write_reports, args=(theirs,), daemon=True)
    with ours:
        try:
            have_a_tracker()
            with signals_held_back(), main_left_out():
                writer.start()
        except OSError as problem:
            log.debug("no process to draw in: %s", problem)
        theirs.close()
        yield lambda folder, plots: _asked(ours, folder, plots) or draw(folder, plots)


def _asked(writer: Connection, folder: Path, plots: Plots) -> str | None:
    """The report in short, or None: whatever was amiss, it is met again here, and told."""
    try:
        writer.send((folder, plots))
        answer: str | None = writer.recv()
    except (EOFError, OSError) as problem:
        log.debug("the process that draws has gone: %r", problem)
        return None
    return answer
