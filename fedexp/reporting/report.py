"""What `fedexp report` does: the reports of runs that are not as they should be, and of all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from fedexp.core.copies import by_copies
from fedexp.core.cores import available_cores, can_fork
from fedexp.core.links import refuse_ways_out
from fedexp.core.plots import Plots
from fedexp.core.preparation import over, say
from fedexp.reporting.current import is_by_this_code, is_current, stamp_of
from fedexp.reporting.finding import find_runs, is_run
from fedexp.reporting.results import Run, load_run
from fedexp.reporting.run_report import report_run, write_run_report
from fedexp.reporting.sweep_report import report_runs

Item = TypeVar("Item")
WORTH_A_POOL = 16  # runs to look at


def report(
    folders: Sequence[Path],
    out: Path | None = None,
    force: bool = False,
    also: Sequence[str] = (),
    style: str = "screen",
) -> str:
    """What `fedexp report` prints: one run's report, or the table of a sweep or several runs.

    Written is only into run folders, into a sweep's own folder where that is what was named, or, if
    `out` is given, into `out` alone. What cannot be written is printed all the same, but for what
    was to go into `out`. The report of a run that was named alone is always made anew, one of
    several where the run is another than when it was drawn.

    Args:
        folders: of runs, or that hold some.
        out: write there alone.
        force: make the reports of all runs anew.
        also: vector formats, `pdf` and `svg`, of the pictures of what was named, beside PNG.
        style: of these pictures, `screen` or `paper`.

    Raises:
        InputError: there is no run in `folders`, or `out` cannot be written to.
    """
    if len(folders) == 1 and is_run(folders[0]):
        if out is None:
            refuse_ways_out(folders[0])
        return report_run(folders[0], folder=out, also=also, style=style)
    paths = find_runs(folders)
    if out is None:
        # A link's target may be anybody's, unless it was named.
        ours = {path for path in paths if path in folders or not path.is_symlink()}
        runs = list(
            _over_the_cores(partial(_reported, force=force), [(p, p in ours) for p in paths])
        )
    else:
        runs = list(_over_the_cores(load_run, paths))
    text = report_runs(runs, folders, out, also, style)
    if out is None and (older := sum(not is_by_this_code(path) for path in ours)):
        whose = "report of 1 run" if older == 1 else f"reports of {older:,} runs"
        text += f"\nThe {whose} were drawn by another version: --force draws them anew.\n"
    return text


def _reported(run_and_whose: tuple[Path, bool], force: bool) -> Run:
    """A run, whose report is in its folder from now on if that is ours to write to."""
    path, is_ours = run_and_whose
    stamp, run = stamp_of(path), load_run(path)
    if is_ours and (force or not is_current(path, stamp)):
        refuse_ways_out(path)
        plots = Plots.of(run.config.get("plots", True))
        write_run_report(run, plots.draw, path, stamp, plots.also, plots.style)
        run = replace(run)  # without what only the report needed
    run.final("attack", "success")  # what the tables need is read here, where there are more cores
    return run


def _over_the_cores(function: Callable[[Item], Run], paths: Sequence[Item]) -> Iterator[Run]:
    """`map(function, paths)`, by copies of this process where it is worth it."""
    workers = min(available_cores(), len(paths) // WORTH_A_POOL)
    if workers <= 1 or not can_fork():
        yield from map(function, paths)
        return
    for done, run in enumerate(by_copies(function, paths, workers)):
        if done % 10 == 0:
            say(f"{done:,} of {len(paths):,} runs")
        yield run
    over()
