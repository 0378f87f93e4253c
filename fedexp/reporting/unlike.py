"""What the rows of a comparison do not have in common, and no column says: seeds, data, versions.

A mean over other seeds is one of other partitions and other first weights; a file that was replaced
between two sweeps keeps its name. Either can look like an effect of what was varied.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from fedexp.core.text import number_of
from fedexp.reporting.results import Run
from fedexp.reporting.tables import Configuration
from fedexp.run_folder.origin import data_of, machines_of

_OF_DATA = ("dataset", "task")
_SAME_BITS = ("threads", "device")  # of a machine: the first by design, the second is a setting
_MOST = 10  # seeds, and kinds of rows, that are listed one by one


def unlike(groups: Sequence[Configuration]) -> list[str]:
    """A sentence for each of seeds, data and versions in which complete runs differ unseen."""
    complete = [run for group in groups for run in group.complete]
    return [*_seeds(groups), *_data(complete), *_versions(complete)]


def _seeds(groups: Sequence[Configuration]) -> list[str]:
    of_rows = [frozenset(run.seed for run in group.complete) for group in groups]
    kinds = list(dict.fromkeys(seeds for seeds in of_rows if seeds))
    if len(kinds) < 2:
        return []
    named = [
        f"{_listed([str(seed) for seed in sorted(seeds, key=lambda s: s or 0)])} in "
        f"{number_of(of_rows.count(seeds), 'row')}"
        for seeds in kinds[:_MOST]
    ]
    more = ["..."] if len(kinds) > _MOST else []
    return [
        f"seeds: {'; '.join([*named, *more])}. A seed decides the partition, the first weights and "
        "who is malicious, so rows of other seeds may differ by these alone"
    ]


def _data(runs: Sequence[Run]) -> list[str]:
    seen: dict[tuple[object, ...], set[str]] = defaultdict(set)
    for run in runs:
        settings = [*run.chosen.items(), *run.leaves.items()]
        asked = sorted((k, str(v)) for k, v in settings if k.split(".")[0] in _OF_DATA)
        seen[tuple(asked)].add(data_of(run.path))
    if all(len(digests - {""}) < 2 for digests in seen.values()):
        return []
    return [
        "data: runs that ask for the same data set were given other examples (`data` in their "
        "origin.json), so neither their means nor their differences are of one experiment"
    ]


def _versions(runs: Sequence[Run]) -> list[str]:
    values: dict[str, dict[str, None]] = defaultdict(dict)
    for machine in (machine for run in runs for machine in machines_of(run.path)):
        for key, value in machine.items():
            values[key][str(value)] = None
    others = [
        f"{key} {_listed(list(seen))}"
        for key, seen in values.items()
        if len(seen) > 1 and key not in _SAME_BITS
    ]
    return [f"computed on: {'; '.join(others)}. Last digits differ, at least"] if others else []


def _listed(names: Sequence[str]) -> str:
    return ", ".join([*names[:_MOST], "..."] if len(names) > _MOST else names)
