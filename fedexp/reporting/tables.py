"""Compares runs: what was set differently, and the means over the seeds of each configuration."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import pandas as pd

from fedexp.reporting.adversary import DETECTOR_RATES, detector_rates
from fedexp.reporting.divergence import NOTE, diverged, dropped_share, marked
from fedexp.reporting.privacy import epsilon_of
from fedexp.reporting.results import Run
from fedexp.reporting.settings import choices_of, leaves_of

ABSENT, UNKNOWN = "", "?"
"""Stand in a table where a run has no such setting, and where it never said what it has."""

_FIGURES = ("accuracy", "macro_f1", "balanced_accuracy", "auc", "loss")
_SUMMARISED = {
    "test_accuracy": "test accuracy",
    "test_accuracy_last_5": "mean of last 5",
    "test_accuracy_last_rounds": "mean of last rounds",
    "test_balanced_accuracy": "balanced accuracy",
    "test_macro_f1": "macro-F1",
    "test_auc": "AUC",
    "attack_success": "attack success",
    "detector_auc": "detector AUC",
    "caught": "caught",
    "false_alarms": "false alarms",
    "epsilon": "epsilon",
    "dropped": "dropped",
}
_ONLY_WHERE_KNOWN = ("test_accuracy_last_rounds", "attack_success", *DETECTOR_RATES, "epsilon")


@final
@dataclass(frozen=True)
class Configuration:
    """The runs that differ in nothing but the seed.

    Attributes:
        settings: what sets this configuration apart from the others, by dotted name.
        runs: its runs, whatever their status.
    """

    settings: Mapping[str, object]
    runs: tuple[Run, ...]

    @property
    def complete(self) -> tuple[Run, ...]:
        """The runs that reached their last round: the only ones that means are taken of."""
        return tuple(run for run in self.runs if run.complete)

    @property
    def failed(self) -> int:
        """How many runs ended with an error."""
        return sum(run.status == "failed" for run in self.runs)

    @property
    def unfinished(self) -> int:
        """How many runs are neither complete nor failed: running, interrupted or unknown."""
        return len(self.runs) - len(self.complete) - self.failed

    def by_seed(self, figure: Callable[[Run], float]) -> pd.Series[float]:
        """A figure of every seed with a complete run.

        Runs that share a seed are repeats of one experiment: here and below their mean counts.
        """
        figures = pd.Series([figure(run) for run in self.complete], dtype="float64")
        return figures.groupby(self._seeds, sort=False).mean()

    def curves_by_seed(self, curve: Callable[[Run], pd.Series[float]]) -> pd.DataFrame:
        """A curve of every seed with a complete run: a row for each round that all measured."""
        curves = dict(enumerate(map(curve, self.complete)))
        found = pd.DataFrame(curves, dtype="float64").dropna()
        return found.T.groupby(self._seeds, sort=False).mean().T

    @property
    def _seeds(self) -> list[str]:
        return [str(run.seed) for run in self.complete]

    @property
    def label(self) -> str:
        """The settings in a line, names without the part that all readers can do without."""
        names = short_names(self.settings)
        shown = [f"{names[key]}={value}" for key, value in self.settings.items() if value != ABSENT]
        return ", ".join(shown) or "all runs"


def differing_keys(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The settings in which runs differ: config groups first, then dotted parameter names.

    Where a group's choice differs, its parameters are listed only if they also differ between runs
    of the same choice. Where the files lie, what Hydra adds and what cannot change a figure (quiet,
    trust, checkpoint_every) are no settings.

    >>> mean = {"choices": {"aggregator": "mean"}, "aggregator": {"_target_": "Mean"}, "seed": 0}
    >>> krum = {"choices": {"aggregator": "krum"}, "aggregator": {"f": 2}, "seed": 0}
    >>> differing_keys([mean, krum])
    ['aggregator']
    >>> differing_keys([mean, krum, krum | {"aggregator": {"f": 3}, "seed": 1}])
    ['aggregator', 'seed', 'aggregator.f']
    """
    return _differing([choices_of(c) for c in configs], [leaves_of(c) for c in configs])


def _differing(
    choices: Sequence[Mapping[str, str]], settings: Sequence[Mapping[str, object]]
) -> list[str]:
    groups = _varying(choices)
    keys = []
    for key in (key for key in _varying(settings) if key not in groups):
        group = next((group for group in groups if key.startswith(f"{group}.")), None)
        values = defaultdict(set)
        for chosen, setting in zip(choices, settings, strict=True):
            values[chosen.get(group or "")].add(setting.get(key, ABSENT))
        if any(len(seen) > 1 for seen in values.values()):
            keys.append(key)
    return groups + keys


def configurations(runs: Sequence[Run]) -> list[Configuration]:
    """The runs grouped by all settings but the seed, in the order of their first run.

    Jobs that failed before their config was written stand in a group of their own.
    """
    keys = [key for key in varied_keys(runs) if key != "seed"]
    groups: dict[tuple[object, ...], list[Run]] = {}
    for run in runs:
        groups.setdefault(tuple(settings_of(run, keys).values()), []).append(run)
    return [
        Configuration(dict(zip(keys, values, strict=True)), tuple(members))
        for values, members in groups.items()
    ]


def run_table(runs: Sequence[Run]) -> pd.DataFrame:
    """One row a job: its settings, its status and its last figures on the test part.

    Columns: job, the settings that differ (seed last), status, rounds_done, test_accuracy,
    test_macro_f1, test_balanced_accuracy, test_auc, test_loss, attack_success (the share of the
    adversary's wanted answers given), detector_auc, caught and false_alarms (shares of the
    malicious and of the honest updates that it scored), epsilon, dropped (the share of the honest
    updates that could not be used), test_accuracy_last_5 (the mean over the last five evaluations),
    test_accuracy_last_rounds (the same of the last `mean_last_rounds` rounds, where the config asks
    for it), majority_baseline, seconds, error. What is unknown is NaN.
    """
    keys = sorted(varied_keys(runs), key=lambda key: key == "seed")
    return pd.DataFrame(
        {
            "job": name,
            **settings_of(run, keys),
            "status": run.status,
            "rounds_done": run.summary.get("rounds"),
            **{f"test_{metric}": run.final("test", metric) for metric in _FIGURES},
            "attack_success": run.attack_success,
            **detector_rates(run),
            "epsilon": epsilon_of(run),
            "dropped": dropped_share(run),
            "test_accuracy_last_5": run.mean_last_5("test", "accuracy"),
            "test_accuracy_last_rounds": run.mean_last_rounds("test", "accuracy"),
            "majority_baseline": run.majority_baseline("test"),
            "seconds": run.summary.get("seconds"),
            "error": run.error,
        }
        for name, run in zip(job_names(runs), runs, strict=True)
    )


def summary_table(runs: Sequence[Run], jobs: pd.DataFrame | None = None) -> pd.DataFrame:
    """One row a configuration: mean and standard deviation over its complete runs' seeds.

    Columns: the settings that differ without the seed, n (seeds with a complete run), failed,
    unfinished, diverged (of the complete runs), then `<figure>_mean` and `<figure>_sd` for the test
    part's accuracy (last, and mean of the last five evaluations), balanced accuracy, macro-F1 and
    AUC, for the attack's success, for what the detector caught and what was dropped. The standard
    deviation is the sample's (n - 1), NaN for n = 1. A mean is NaN if one of the seeds lacks the
    figure. `jobs` is the `run_table` of the runs, where it is at hand.
    """
    table = (run_table(runs) if jobs is None else jobs).set_index("job")
    names = dict(zip((run.path for run in runs), job_names(runs), strict=True))
    rows = []
    for group in configurations(runs):
        complete = table.loc[[names[run.path] for run in group.complete]]
        # Runs that share a seed are repeats of one experiment, and count as one.
        seeds = [str(run.seed) for run in group.complete]
        by_seed = complete[list(_SUMMARISED)].astype("float64").groupby(seeds).mean()
        row: dict[str, object] = {
            **group.settings,
            "n": len(by_seed),
            "failed": group.failed,
            "unfinished": group.unfinished,
            "diverged": sum(map(diverged, group.complete)),
        }
        for figure in _SUMMARISED:
            row[f"{figure}_mean"] = by_seed[figure].mean(skipna=False)
            with np.errstate(invalid="ignore"):  # where epsilon is infinite
                row[f"{figure}_sd"] = by_seed[figure].std(skipna=False)
        rows.append(row)
    return pd.DataFrame(rows)


def markdown(runs: Sequence[Run], jobs: pd.DataFrame | None = None) -> str:
    """The summary as a Markdown table, then every job that its means leave out, with the reason.

    `jobs` is the `run_table` of the runs, where it is at hand.
    """
    jobs = run_table(runs) if jobs is None else jobs
    summary = summary_table(runs, jobs)
    figures = [f"{figure}_{what}" for figure in _SUMMARISED for what in ("mean", "sd")]
    shown = summary.drop(columns=figures)
    shown = shown.rename(columns={"n": "seeds"})
    # Counts that are 0 in every row say nothing.
    counts = ("failed", "unfinished", "diverged")
    shown = shown.drop(columns=[c for c in counts if not shown[c].any()])
    for figure, heading in _SUMMARISED.items():
        shown[heading] = [
            spread(mean, deviation)
            for mean, deviation in zip(
                summary[f"{figure}_mean"], summary[f"{figure}_sd"], strict=True
            )
        ]
    silent = [_SUMMARISED[f] for f in _ONLY_WHERE_KNOWN]
    shown = shown.drop(columns=[c for c in silent if not shown[c].any()])
    if not summary["diverged"].any():
        shown = shown.drop(columns=_SUMMARISED["dropped"])
    accuracy = _SUMMARISED["test_accuracy"]
    shown[accuracy] = list(map(marked, shown[accuracy], summary["diverged"]))
    text = "Mean ± standard deviation over the seeds, on the test part.\n\n" + to_markdown(shown)
    if summary["diverged"].any():
        text += f"\n\n{NOTE}"

    left_out = jobs.loc[jobs["status"] != "complete", ["job", "status", "error"]]
    if not left_out.empty:
        text += "\n\nNot in these means:\n\n" + to_markdown(left_out)
    return text + "\n"


def to_markdown(table: pd.DataFrame) -> str:
    """A Markdown table of `table`'s cells as they are, without its index."""
    cells = table.map(lambda cell: " ".join(str(cell).split()).replace("|", "\\|"))
    return cells.to_markdown(index=False, tablefmt="pipe", disable_numparse=True)


def spread(mean: float, deviation: float) -> str:
    """A mean and a standard deviation for a reader.

    >>> spread(0.9541, 0.0032), spread(0.9541, float("nan")), spread(float("nan"), float("nan"))
    ('0.954 ± 0.003', '0.954', '')
    """
    if math.isnan(mean):
        return ""
    return f"{mean:.3f}" if math.isnan(deviation) else f"{mean:.3f} ± {deviation:.3f}"


def common_folder(paths: Sequence[Path]) -> Path:
    """The innermost folder that holds all of `paths`; for one path, the folder around it."""
    around = [path.absolute().parent for path in paths]
    return Path(os.path.commonpath(around))


def job_names(runs: Sequence[Run]) -> list[str]:
    """Each run's path below the folder that holds them all."""
    folder = common_folder([run.path for run in runs])
    return [run.path.absolute().relative_to(folder).as_posix() for run in runs]


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """The last part of each dotted name where that is still unique, else the whole name.

    >>> short_names(["aggregator", "training.lr", "attack.f", "aggregator.f"])
    {'aggregator': 'aggregator', 'training.lr': 'lr', 'attack.f': 'attack.f',
     'aggregator.f': 'aggregator.f'}
    """
    keys = list(keys)
    last = [key.rsplit(".", 1)[-1] for key in keys]
    return {
        key: name if last.count(name) == 1 else key for key, name in zip(keys, last, strict=True)
    }


def varied_keys(runs: Sequence[Run]) -> list[str]:
    """What differs, without what only follows from it (a number computed from a fraction)."""
    known = [run for run in runs if run.config]
    keys = _differing([run.chosen for run in known], [run.leaves for run in known])
    overridden = set().union(*(_overridden(run.config) for run in known))
    asked = [key for key in keys if key in overridden]
    if not all("overrides" in run.config for run in known):
        return keys
    values: dict[tuple[object, ...], list[dict[str, object]]] = defaultdict(list)
    for run in known:
        values[tuple(settings_of(run, asked).values())].append(settings_of(run, keys))
    # Two runs that were asked for alike and differ all the same (a default was changed between
    # them) must not fall into one: then the difference stays.
    return [
        key
        for key in keys
        if key in asked or any(len({v[key] for v in alike}) > 1 for alike in values.values())
    ]


def _overridden(config: Mapping[str, Any]) -> set[str]:
    """The keys that the command line or the sweep set, dotted."""
    overrides = config.get("overrides") or []
    return {str(o).lstrip("+~").partition("=")[0].replace("/", ".") for o in overrides}


def settings_of(run: Run, keys: Sequence[str]) -> dict[str, object]:
    """What a run has for each of the dotted names: `ABSENT` or `UNKNOWN` where it says nothing."""
    missing = ABSENT if run.config else UNKNOWN
    return {key: run.chosen.get(key, run.leaves.get(key, missing)) for key in keys}


def _varying(mappings: Sequence[Mapping[str, object]]) -> list[str]:
    """The names that do not have one value, or no value, in all mappings."""
    names = dict.fromkeys(name for mapping in mappings for name in mapping)
    return [name for name in names if len({m.get(name, ABSENT) for m in mappings}) > 1]
