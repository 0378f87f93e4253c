"""Is one setting better than another, seed by seed? Differences of a sweep's runs, as CSV.

    python scripts/paired_seeds.py SWEEP aggregator mean median

A line for every combination of the other settings that differ: the test accuracy of both at the
last round (mean and, under ±, the sample's standard deviation over the seeds that both have), the
mean of the second minus the first, and its 95 % interval

    d ± t(0.975, n - 1) s / sqrt(n)        d, s: mean and deviation of the n differences

(Student, "The probable error of a mean", Biometrika 1908; scipy.stats.ttest_rel). A seed decides
the clients' data, the initial weights and who is malicious in both, so that what these change
together cancels out. The interval is of other seeds on the same data set, not of other data; with
ten seeds it counts on differences that are about normal.
"""

import csv
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import ttest_rel

from fedexp.core.checks import InputError
from fedexp.reporting.finding import find_runs
from fedexp.reporting.results import load_run
from fedexp.reporting.tables import Configuration, configurations, short_names

FEWEST = 3  # seeds: the interval of two is wider than any accuracy


def of_seeds(group: Configuration) -> dict[int, float]:
    """Test accuracy of the complete runs, by seed."""
    figures = group.by_seed(lambda run: run.final("test", "accuracy"))
    return {int(seed): value for seed, value in figures.items()}


def difference(first: dict[int, float], second: dict[int, float]) -> dict[str, str]:
    """Second minus first over the seeds of both, with its interval; "" for fewer than three."""
    seeds = sorted(first.keys() & second.keys())
    if len(seeds) < FEWEST:
        return {"difference": "", "difference low": "", "difference high": ""}
    a, b = (np.array([values[seed] for seed in seeds]) for values in (second, first))
    low, high = ttest_rel(a, b).confidence_interval(0.95)
    found = {"difference": (a - b).mean(), "difference low": low, "difference high": high}
    return {name: f"{value:+.3f}" for name, value in found.items()}


def rows(folder: Path, key: str, first: str, second: str) -> list[dict[str, str]]:
    """A row for each combination of the other settings in which both were run."""
    cells: dict[tuple[tuple[str, str], ...], dict[str, dict[int, float]]] = defaultdict(dict)
    for group in configurations([load_run(path) for path in find_runs([folder])]):
        names = short_names(group.settings)
        chosen = {names[name]: str(value) for name, value in group.settings.items()}
        value = chosen.pop(names.get(key, key), "")  # a dotted key by its whole or its last name
        cells[tuple(chosen.items())][value] = of_seeds(group)
    found = []
    for settings, values in cells.items():
        if first in values and second in values:
            seeds = sorted(values[first].keys() & values[second].keys())
            row = dict(settings)
            for name in (first, second) if seeds else ():
                known = pd.Series([values[name][seed] for seed in seeds])
                row |= {name: f"{known.mean():.3f}", f"{name} ±": f"{known.std():.3f}"}
            found.append(row | difference(values[first], values[second]))
            found[-1]["seeds"] = str(len(seeds))
    return found


def main(arguments: list[str]) -> int:
    if len(arguments) != 4:
        print("usage: python scripts/paired_seeds.py SWEEP KEY FIRST SECOND", file=sys.stderr)
        return 2
    folder, key, first, second = arguments
    try:
        found = rows(Path(folder), key, first, second)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    if not found:
        print(f"{folder}: no runs that have {key}={first} and {second} in common", file=sys.stderr)
        return 1
    columns = list(dict.fromkeys(name for row in found for name in row))
    table = csv.DictWriter(sys.stdout, columns, restval="", lineterminator="\n")
    table.writeheader()
    table.writerows(found)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
