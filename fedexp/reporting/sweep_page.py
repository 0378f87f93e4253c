"""The page of a sweep: what its tables say, its curves, and the way to every job."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from fedexp.core.text import number_of
from fedexp.reporting.blocks import blocks_of
from fedexp.reporting.chart import Chart, chart
from fedexp.reporting.page import page, pictures
from fedexp.reporting.results import Run
from fedexp.reporting.tables import Configuration, job_names

_MOST_CURVES = 24  # as many as `comparison.png` has: more could not be told apart


def sweep_page(
    folder: Path,
    runs: Sequence[Run],
    groups: Sequence[Configuration],
    jobs: pd.DataFrame,
    text: str,
    drawn: Sequence[Path],
) -> str:
    """`report.html` of a sweep.

    Args:
        folder: where it will lie.
        runs: of the sweep.
        groups: its configurations.
        jobs: the table with a row a job, in the order of `runs`.
        text: the Markdown of its tables.
        drawn: its pictures.
    """
    compared = _compared(groups)
    return page(
        "sweep.html.j2",
        title=f"fedexp: {folder.resolve().name}",
        name=folder.resolve().name,
        description=f"{number_of(len(runs), 'job')}, {number_of(len(groups), 'configuration')}",
        charts=[compared] if compared else [],
        blocks=blocks_of(text),
        pictures=pictures(drawn, without=("comparison",) if compared else ()),
        jobs=_jobs(folder, runs, jobs),
    )


def _compared(groups: Sequence[Configuration]) -> Chart | None:
    """Test accuracy over the rounds, a curve a configuration: the mean over its seeds."""
    if len(groups) > _MOST_CURVES:
        return None
    curves = {}
    for group in groups:
        if group.complete:
            of_seeds = group.curves_by_seed(lambda run: run.model_curve("test", "accuracy"))
            curves[group.label] = of_seeds.mean(axis=1)
    return chart("Test accuracy", "mean over the seeds of each configuration", curves)


def _jobs(folder: Path, runs: Sequence[Run], jobs: pd.DataFrame) -> dict[str, Any]:
    """The table of jobs without its empty columns, and where the report of each lies."""
    known = jobs.loc[:, [name for name in jobs if not jobs[name].isin(["", math.nan]).all()]]
    links = {}
    for name, run in zip(job_names(runs), runs, strict=True):
        below = run.path.absolute().is_relative_to(folder.absolute())
        if below and (run.path / "report.html").is_file():
            place = run.path.absolute().relative_to(folder.absolute()).as_posix()
            links[name] = f"./{quote(place)}/report.html"  # quoted, it names no other protocol
    cells = known.map(lambda value: f"{value:.4g}" if isinstance(value, float) else str(value))
    rows = cells.replace("nan", "").to_numpy().tolist()
    return {"columns": list(known.columns), "rows": rows, "links": links}
