"""fedexp from Python: start a run, and read what runs have left, as tidy pandas frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np
import pandas as pd

from fedexp.core.checks import InputError
from fedexp.reporting.finding import find_runs, is_run
from fedexp.reporting.results import Run as _Results
from fedexp.reporting.results import load_run
from fedexp.reporting.tables import run_table

_LEAKAGE = ("study", "subject", "adversary", "round", "target", "metric", "value", "low", "high")
_PARTS = ("train", "validation", "test", "attack")


@final
@dataclass(frozen=True)
class Run:
    """One run: its folder, and what lies in it. Read when it is first asked for, and kept.

    Attributes:
        folder: of the run.
    """

    folder: Path

    @cached_property
    def _results(self) -> _Results:
        return load_run(self.folder)

    @property
    def config(self) -> Mapping[str, Any]:
        """The resolved config."""
        return self._results.config

    @property
    def summary(self) -> Mapping[str, Any]:
        """summary.json: status, final figures, versions, what was promised about privacy."""
        return self._results.summary

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """Every measured number, one a row: round, scope, client, metric, value.

        `scope` says on what it was measured (train, validation, test, attack, round, ...);
        `client` is a client's number, "all" for the shared model, or mean, std, min, max over the
        clients' own models.
        """
        words = dict.fromkeys(("scope", "client", "metric"), str)
        return self._results.metrics.reset_index(drop=True).astype(words)

    @cached_property
    def clients(self) -> pd.DataFrame:
        """One row a client: what it holds, whether it is malicious, and its last figures.

        Columns: client, name (where clients have one), examples, malicious, `count_CLASS` for
        every class, and `SCOPE_METRIC` (`test_own_mix_accuracy`, ...) for what was measured of
        single clients, NaN where it never was.
        """
        partition = self._results.partition or {}
        n = len(partition.get("sizes", ()))
        malicious = set(self.summary.get("malicious_clients") or ())
        names = {"name": partition["names"]} if "names" in partition else {}
        counts = np.reshape(partition.get("counts", ()), (n, -1)) if n else np.empty((0, 0), int)
        frame = pd.DataFrame(
            {
                "client": np.arange(n),
                **names,
                "examples": partition.get("sizes", []),
                "malicious": [client in malicious for client in range(n)],
                **{
                    f"count_{name}": counts[:, k]
                    for k, name in enumerate(partition.get("class_names", ())[: counts.shape[1]])
                },
            }
        )
        rows = self.metrics
        rows = rows[rows["client"].str.fullmatch(r"[0-9]{1,15}") & rows["scope"].isin(_PARTS)]
        figures = rows["scope"] + "_" + rows["metric"]
        measured = rows.assign(client=rows["client"].astype("int64"), figure=figures)
        last = measured.drop_duplicates(["client", "figure"], keep="last")
        wide = last.pivot(index="client", columns="figure", values="value")
        return frame.merge(wide, how="left", left_on="client", right_index=True)

    @cached_property
    def leakage(self) -> pd.DataFrame:
        """What the studies of the run found, one number a row.

        Columns: study; subject, what was attacked, "all" for the study's headline; adversary, its
        name ("outsider", "server", ...); round and target, <NA> in a headline; metric, value; low
        and high, the ends of its interval, NaN where it has none.
        """
        rows: list[tuple[object, ...]] = []
        for found in self._results.leakage:
            name, headline, figures = found.name, found.headline, found.figures
            rows += [
                (name, "all", found.adversary_of("all"), None, None, metric, *numbers)
                for metric, *numbers in _with_ends(headline)
            ]
            of_one: dict[tuple[object, ...], dict[str, float]] = {}
            keys = zip(*(figures[key] for key in ("subject", "round", "target")), strict=True)
            for key, metric, value in zip(keys, figures["metric"], figures["value"], strict=True):
                of_one.setdefault(key, {})[metric] = value
            rows += [
                (name, subject, found.adversary_of(str(subject)), round, target, metric, *numbers)
                for (subject, round, target), values in of_one.items()
                for metric, *numbers in _with_ends(values)
            ]
        frame = pd.DataFrame(rows, columns=_LEAKAGE)
        whole = dict.fromkeys(("round", "target"), "Int64")
        return frame.astype({**whole, **dict.fromkeys(("value", "low", "high"), "float64")})


@final
@dataclass(frozen=True)
class Sweep:
    """Several runs.

    Attributes:
        folder: that holds them.
        runs: in natural order of their folders.
    """

    folder: Path
    runs: tuple[Run, ...]

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row a run: job, the settings in which runs differ, status, last figures, seconds.

        As in the sweep's table.csv; what is unknown is NaN.
        """
        return run_table([run._results for run in self.runs])


def run(overrides: Sequence[str] = ()) -> Run:
    """Carry out one run, as `fedexp run OVERRIDES` does, and give what it left.

    Args:
        overrides: as on the command line: `["aggregator=median", "rounds=50"]`. The folder is
            `hydra.run.dir=FOLDER`, by default a new one under outputs/.

    Raises:
        InputError: an override, or what they make together, cannot be used; nothing was written.
        KeyboardInterrupt: the rounds completed are saved; `fedexp resume` goes on.
    """
    from fedexp.commands.in_python import run_here

    return load_one(run_here(overrides))


def load(path: str | Path) -> Run | Sweep:
    """The run in a folder, or the runs below it.

    Raises:
        InputError: there is no such folder, no run lies there, or it cannot be read.
    """
    try:
        path = Path(path)
    except TypeError as problem:
        raise InputError("must be the path of a folder", "path", repr(path)) from problem
    if path.is_dir() and not is_run(path):
        return Sweep(path, tuple(map(load_one, find_runs([path]))))
    return load_one(path)


def load_one(folder: Path) -> Run:
    """The run in `folder`; InputError if there is none, or its config cannot be read."""
    found = Run(folder)
    found._results  # noqa: B018 - read now, so that a wrong folder is refused now
    return found


def _with_ends(values: Mapping[str, float]) -> list[tuple[str, float, float, float]]:
    """Each metric with its value and the ends of its interval, which are metrics of their own."""
    ends = {f"{metric}_{end}" for metric in values for end in ("low", "high")}
    return [
        (metric, value, values.get(f"{metric}_low", np.nan), values.get(f"{metric}_high", np.nan))
        for metric, value in values.items()
        if metric not in ends
    ]
