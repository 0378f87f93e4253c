"""Reads what a run left in its folder. Nothing here writes, and nothing here trains.

Config and summary are read at once, the rest when it is first asked for: the table of a sweep of
hundreds of runs needs little more than their summaries.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np
import pandas as pd

from fedexp.core.checks import InputError, refuse_no_folder
from fedexp.core.text import cleaned
from fedexp.core.thresholds import Bin
from fedexp.reporting.finding import MARKS, is_run
from fedexp.reporting.settings import choice_name, choices_of, leaves_of
from fedexp.run_folder.findings import StudyRecord, read_findings
from fedexp.run_folder.reading import (
    measured,
    read_config,
    read_confusion,
    read_json,
    read_lines,
    read_metrics,
    read_of_clients,
    read_shared,
)
from fedexp.run_folder.shapes import CONFIG, PARTITION, SUMMARY, TIMING, checked
from fedexp.run_folder.thresholds import read_thresholds
from fedexp.run_folder.verdict import read_verdict

_OPTIONAL = {
    "pre_aggregation": "pre-aggregation",
    "detector": "detector",
    "privacy": "privacy",
    "channel": "channel",
}
_OF_ALL = ("all", "mean", "std", "min", "max")


@final
@dataclass(frozen=True)
class Run:
    """What one run folder holds. A piece that was never written is empty or None.

    Attributes:
        path: the run folder.
        config: the resolved config; empty if the job failed before it was written.
        summary: `summary.json`; its "status" is complete, running, interrupted or failed.
    """

    path: Path
    config: Mapping[str, Any]
    summary: Mapping[str, Any]

    @cached_property
    def shared(self) -> pd.DataFrame:
        """As `metrics`, but no more than is needed of what is about single clients."""
        return read_shared(self.path, self.complete)

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """One row a measured number, columns round, scope, client, metric, value.

        With the estimates for clients that follow from them; where those are more than a million,
        the ones of the last evaluation.
        """
        return read_metrics(self.path, self.complete, self.shared, self.counts)

    @property
    def counts(self) -> np.ndarray:
        """`[n_clients, classes]` examples of each class; `[0, 0]` where that is not listed."""
        counts = np.asarray((self.partition or {}).get("counts") or [[]], dtype=np.int64)
        return counts if counts.size else np.empty((0, 0), dtype=np.int64)

    @cached_property
    def partition(self) -> Any:
        """`partition.json` without the clients' indices: a mapping, or None."""
        path = self.path / "partition.json"
        document = checked(read_json(path), PARTITION, path)
        if document is not None:
            # They say how to repeat the run, not how it went, and are most of the file.
            document.pop("indices", None)
        return cleaned(document)

    @property
    def names_clients(self) -> bool:
        """Whether clients have names, as natural sites do."""
        return bool((self.partition or {}).get("names"))

    def client_name(self, client: int) -> str:
        """A client's name, which natural sites have, or its number in words."""
        names = (self.partition or {}).get("names") or []
        return str(names[client]) if 0 <= client < len(names) else f"client {client}"

    @cached_property
    def confusion(self) -> pd.DataFrame | None:
        """Counts on the test part: rows are the true class, columns the answer."""
        return read_confusion(self.path / "confusion_matrix.csv")

    @cached_property
    def thresholds(self) -> Mapping[str, list[Bin]]:
        """The last model's probabilities on test in bins, by class; empty where there are none."""
        return read_thresholds(self.path)

    @cached_property
    def timing(self) -> pd.DataFrame:
        """One row a round, columns round, train, aggregate, evaluate (seconds)."""
        path = self.path / "timing.jsonl"
        return pd.DataFrame([checked(line, TIMING, path) for line in read_lines(path)])

    @cached_property
    def leakage(self) -> tuple[StudyRecord, ...]:
        """What the studies of the run found, by name; empty if there was none."""
        return read_findings(self.path)

    @cached_property
    def verdict(self) -> dict[str, Any] | None:
        """What federation is worth to every site (`verdict.json`); None where nobody asked."""
        return read_verdict(self.path)

    @property
    def status(self) -> str:
        """How the run ended, or "unknown" if it never said."""
        return str(self.summary.get("status", "unknown"))

    @property
    def complete(self) -> bool:
        """Whether the run went through all its rounds, or stopped because it was meant to."""
        return self.status == "complete"

    @property
    def error(self) -> str:
        """Why the run failed, in one line; empty if it did not."""
        return " ".join(str(self.summary.get("error") or "").split())

    @property
    def seed(self) -> int | None:
        """The seed that all randomness of the run came from."""
        seed = self.config.get("seed", self.summary.get("seed"))
        return None if seed is None else int(seed)

    @cached_property
    def choices(self) -> Mapping[str, str]:
        """The chosen YAML of each config group, for example {"aggregator": "median"}."""
        chosen = self.config.get("choices") or {}
        return {group: choice_name(name) for group, name in chosen.items() if name is not None}

    @cached_property
    def chosen(self) -> Mapping[str, str]:
        """As `choices`, of the groups that are settings alone, by dotted name."""
        return choices_of(self.config)

    @cached_property
    def leaves(self) -> Mapping[str, object]:
        """Every setting below the groups, by dotted name, as a value that can be compared."""
        return leaves_of(self.config)

    @property
    def attacked(self) -> bool:
        """Whether any client was malicious."""
        n_malicious = (self.config.get("attack") or {}).get("n_malicious")
        return self.choices.get("attack", "none") != "none" and n_malicious != 0

    @cached_property
    def _curves(self) -> Mapping[tuple[str, str, str], tuple[list[int], list[float]]]:
        """What was measured of all clients together, by scope, metric and client.

        Found once, without a table: that would take most of the report of a sweep.
        """
        found = defaultdict[tuple[str, str, str], dict[int, float]](dict)
        for number, scope, client, metric, value in measured(self.path, self.complete):
            if client in _OF_ALL:
                # Of an old run that was killed and resumed the last rounds may be there twice.
                found[scope, metric, client][number] = value
        curves = ((key, dict(sorted(values.items()))) for key, values in found.items())
        return {key: (list(values), list(values.values())) for key, values in curves}

    def of_clients(
        self, scope: str, metrics: Collection[str]
    ) -> Mapping[tuple[int, str], Mapping[str, float]]:
        """What was measured of single clients in a scope: (round, client) -> metric -> value.

        As in `metrics`, but `metrics` is a table of everything, which takes a sweep minutes.
        """
        last = max((rounds[-1] for rounds, _ in self._curves.values()), default=0)
        found = defaultdict[tuple[int, str], dict[str, float]](dict)
        for number, _, client, metric, value in read_of_clients(
            self.path, self.complete, scope, metrics
        ):
            if number <= last and client not in _OF_ALL:
                found[number, client][metric] = value
        return found

    @cached_property
    def shares_model(self) -> bool:
        """Whether one model was tested for all clients, rather than one for each."""
        if any(s in ("validation", "test") and c == "all" for s, _, c in self._curves):
            return True
        tested = self.shared[self.shared["scope"].isin(["validation", "test"])]
        return tested.empty or bool((tested["client"] == "all").any())

    @property
    def description(self) -> str:
        """What was run, in a line: the choices that matter most, and the seed."""
        words = {
            "setting": "{}",
            "dataset": "{}",
            "partition": "{} partition",
            "model": "model {}",
            "training": "training {}",
            "attack": "attack {}",
            "aggregator": "aggregator {}",
        }
        parts = [form.format(self.choices[g]) for g, form in words.items() if g in self.choices]
        optional = {group: self.choices.get(group, "none") for group in _OPTIONAL}
        parts += [
            f"{_OPTIONAL[group]} {name}"
            for group, name in optional.items()
            if name not in ("none", "plain")
        ]
        n_clients = self.config.get("n_clients")
        if n_clients is not None:
            parts.append(f"{n_clients:,} client{'s' if n_clients != 1 else ''}{self._on_top}")
        if self.seed is not None:
            parts.append(f"seed {self.seed}")
        return ", ".join(parts)

    @property
    def _on_top(self) -> str:
        attack = self.config.get("attack") or {}
        return f" and {attack.get('n_malicious')} on top" if attack.get("extra_clients") else ""

    @cached_property
    def attack_success(self) -> float:
        """The share of the adversary's wanted answers at the last evaluation, or NaN.

        Of a run in which the attack has no clients: what there is without an attacker.
        """
        return self.final("attack", "success")

    @cached_property
    def dropped_exactly_the_attackers(self) -> bool:
        """Whether in every round what the adversary sent was left out, and nothing else was."""
        if (self.summary.get("totals") or {}).get("dropped") == 0:
            return False  # as nearly always: what single clients did need not be read
        rows = self.metrics[(self.metrics["scope"] == "update") & (self.metrics["value"] == 1)]
        malicious, dropped = (
            set(map(tuple, rows.loc[rows["metric"] == metric, ["round", "client"]].to_numpy()))
            for metric in ("malicious", "dropped")
        )
        return bool(malicious) and malicious == dropped

    def curve(self, scope: str, metric: str, client: str = "all") -> pd.Series[float]:
        """One number over the rounds in which it was measured, indexed by round."""
        if client in _OF_ALL:
            rounds, values = self._curves.get((scope, metric, client), ([], []))
            at = pd.Index(rounds, dtype="int64", name="round")
            return pd.Series(values, index=at, dtype="float64", name="value")
        rows = self.metrics
        rows = rows[
            (rows["scope"] == scope) & (rows["metric"] == metric) & (rows["client"] == client)
        ]
        return rows.set_index("round")["value"]

    def model_curve(self, part: str, metric: str) -> pd.Series[float]:
        """The shared model's curve on `part`; without one, the mean over the clients' models."""
        return self.curve(part, metric, "all" if self.shares_model else "mean")

    def per_client(self, part: str, metric: str) -> pd.Series[float]:
        """The last measurement of every single client, indexed by client number; may be empty."""
        rows = self.metrics
        rows = rows[
            (rows["scope"] == part)
            & (rows["metric"] == metric)
            & rows["client"].str.fullmatch(r"[0-9]{1,15}")
        ]
        rows = rows[rows["round"] == rows["round"].max()]
        clients = rows["client"].astype(str).astype("int64")
        values: pd.Series[float] = rows.set_index(clients)["value"]
        return values.dropna()

    def final(self, part: str, metric: str) -> float:
        """The figure after the last evaluation on `part` (test, validation, attack), or NaN.

        Runs without a shared model answer with the mean over the clients' models.
        """
        return self._recorded("final", part, metric, last=1)

    def majority_baseline(self, part: str) -> float:
        """The accuracy on `part` of always answering the commonest training class, or NaN."""
        value = self._recorded("final", part, "majority_baseline", last=1)
        # The summary of a run without an evaluation has it beside the figures only.
        beside = (self.summary.get("majority_baseline") or {}).get(part)
        return float(beside) if math.isnan(value) and beside is not None else value

    def mean_last_5(self, part: str, metric: str) -> float:
        """The mean over the last five evaluations on `part`; NaN if there is none."""
        return self._recorded("mean_last_5", part, metric, last=5)

    def mean_last_rounds(self, part: str, metric: str) -> float:
        """The mean over the last `mean_last_rounds` rounds, where the config asks for one; or NaN.

        Of the evaluations in them.
        """
        value = ((self.summary.get("mean_last_rounds") or {}).get(part) or {}).get(metric)
        return math.nan if value is None else float(value)

    def _recorded(self, span: str, part: str, metric: str, last: int) -> float:
        figures = (self.summary.get(span) or {}).get(part) or {}
        if metric in figures:
            return math.nan if figures[metric] is None else float(figures[metric])
        # A run that is not over has no figures in its summary yet. An unmeasured last value (an
        # AUC that is not defined) stays unknown: an older round's would pass for the last one.
        client = "all" if self.shares_model else "mean"
        if (part, metric, client) not in self._curves:
            return math.nan
        return float(self.curve(part, metric, client).iloc[-last:].mean(skipna=False))


def load_run(path: str | Path) -> Run:
    """What the run folder `path` holds, also while the run is still going on.

    Raises:
        InputError: `path` is no run folder, or a file cannot be read: config and summary here,
            another when it is first asked for.
    """
    path = Path(path)
    refuse_no_folder(path, "path")
    if not is_run(path):
        raise InputError(f"is no run folder: it holds none of {', '.join(MARKS)}", "path", path)
    config = checked(read_config(path / "config.yaml"), CONFIG, path / "config.yaml")
    summary = checked(read_json(path / "summary.json") or {}, SUMMARY, path / "summary.json")
    return Run(path=path, config=cleaned(config), summary=cleaned(summary))
