"""What a setting is worth and what it gives away, side by side: one table of a sweep's studies.

A row is a setting, its cells are mean ± deviation over the seeds. Of every study stand the two
figures that settings are compared by (`fedexp.reporting.leakage_sweep`); where a sweep has one
study only, that study's own table says as much.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from fedexp.reporting.leakage import metric_name
from fedexp.reporting.leakage_sweep import by_seed, compared, of_seeds, studies_of
from fedexp.reporting.tables import ABSENT, Configuration, short_names

_WORTH = {"accuracy": "test accuracy", "macro_f1": "macro-F1"}


def utility_and_leak(groups: Sequence[Configuration]) -> pd.DataFrame:
    """A row for each setting that was studied; empty where fewer than two studies were made.

    Columns: the settings that differ, seeds, what a client sends in a round where that differs,
    test accuracy, macro-F1, and `STUDY: METRIC`.
    """
    studies = studies_of([run for group in groups for run in group.complete])
    if len(studies) < 2:
        return pd.DataFrame()
    found = {study: [by_seed(group, study) for group in groups] for study in studies}
    sent = [_kilobytes(group) for group in groups]
    rows = []
    for place, group in enumerate(groups):
        if not any(len(tables[place]) for tables in found.values()):
            continue
        names = short_names(group.settings)
        row = {names[key]: value for key, value in group.settings.items() if value != ABSENT}
        row["seeds"] = str(len({str(run.seed) for run in group.complete}))
        if len(set(sent)) > 1:
            row["kB up a client and round"] = sent[place]
        row |= {heading: _worth(group, metric) for metric, heading in _WORTH.items()}
        for study, tables in found.items():
            own = tables[place]
            for metric in compared(tables):
                cell = of_seeds(metric, own[metric]) if metric in own else ""
                row[f"{study}: {metric_name(metric)}"] = cell
        rows.append(row)
    return pd.DataFrame(rows).fillna("")


def _worth(group: Configuration, metric: str) -> str:
    values = group.by_seed(lambda run: run.final("test", metric))
    return "" if math.isnan(values.mean(skipna=False)) else of_seeds(metric, values)


def _kilobytes(group: Configuration) -> str:
    """What one client sends in one round on average; empty where no run has counted it."""
    known = [
        run.summary["bytes_up"] / (run.summary["rounds"] * run.config["cohort_size"])
        for run in group.complete
        if run.summary.get("bytes_up") and run.summary.get("rounds")
        if run.config.get("cohort_size")
    ]
    return f"{sum(known) / len(known) / 1000:.1f}" if known else ""
