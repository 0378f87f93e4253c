"""Reads what a run left in its folder. Nothing here writes, and nothing here trains."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import pandas as pd

from fedexp.checks import InputError

COLUMNS = ["round", "scope", "client", "metric", "value"]
_MARKS = ("summary.json", "config.yaml", "metrics.jsonl", "metrics.csv")


@final
@dataclass(frozen=True)
class Run:
    """What one run folder holds. A piece that was never written is empty or None.

    Attributes:
        path: the run folder.
        config: the resolved config; empty if the job failed before it was written.
        summary: `summary.json`; its "status" is complete, running, interrupted or failed.
        metrics: one row a measured number, columns round, scope, client, metric, value.
        partition: `partition.json` without the clients' indices.
        confusion: counts on the test part, rows are the true class, columns the answer.
        timing: one row a round, columns round, train, aggregate, evaluate (seconds).
    """

    path: Path
    config: Mapping[str, Any]
    summary: Mapping[str, Any]
    metrics: pd.DataFrame
    partition: Mapping[str, Any] | None
    confusion: pd.DataFrame | None
    timing: pd.DataFrame

    @property
    def status(self) -> str:
        """How the run ended, or "unknown" if it never said."""
        return str(self.summary.get("status", "unknown"))

    @property
    def error(self) -> str:
        """Why the run failed, in one line; empty if it did not."""
        return " ".join(str(self.summary.get("error") or "").split())

    @property
    def seed(self) -> int | None:
        """The seed that all randomness of the run came from."""
        seed = self.config.get("seed", self.summary.get("seed"))
        return None if seed is None else int(seed)

    @property
    def choices(self) -> dict[str, str]:
        """The chosen YAML of each config group, for example {"aggregator": "median"}."""
        chosen = self.config.get("choices") or {}
        return {group: str(name) for group, name in chosen.items() if name is not None}

    @property
    def shares_model(self) -> bool:
        """Whether one model was tested for all clients, rather than one for each."""
        tested = self.metrics[self.metrics["scope"].isin(["validation", "test"])]
        return tested.empty or bool((tested["client"] == "all").any())

    @property
    def description(self) -> str:
        """What was run, in a line: the choices that every run has, and the seed."""
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
        n_clients = self.config.get("n_clients")
        if n_clients is not None:
            parts.append(f"{n_clients:,} client{'s' if n_clients != 1 else ''}")
        if self.seed is not None:
            parts.append(f"seed {self.seed}")
        return ", ".join(parts)

    def curve(self, scope: str, metric: str, client: str = "all") -> pd.Series[float]:
        """One number over the rounds in which it was measured, indexed by round."""
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
            (rows["scope"] == part) & (rows["metric"] == metric) & rows["client"].str.isdigit()
        ]
        rows = rows[rows["round"] == rows["round"].max()]
        values: pd.Series[float] = rows.set_index(rows["client"].astype("int64"))["value"]
        return values.dropna()

    def final(self, part: str, metric: str) -> float:
        """The figure after the last evaluation on `part` (test, validation); NaN if there is none.

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

    def _recorded(self, span: str, part: str, metric: str, last: int) -> float:
        value = ((self.summary.get(span) or {}).get(part) or {}).get(metric)
        if value is not None:
            return float(value)
        # A run that is not over has no figures in its summary yet. An unmeasured last value (an
        # AUC that is not defined) stays unknown: an older round's would pass for the last one.
        return float(self.model_curve(part, metric).iloc[-last:].mean(skipna=False))


def is_run(path: Path) -> bool:
    """Whether `path` is a run folder: one of the files that every run leaves is there."""
    return any((path / name).is_file() for name in _MARKS)


def find_runs(paths: Iterable[str | Path]) -> list[Path]:
    """The run folders among and below `paths`, each once, in natural order (2 before 10).

    Raises:
        InputError: a path is no folder, or no run lies there.
    """
    found: dict[Path, Path] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            raise InputError("there is no such folder", "path", path)
        below = list(_runs_below(path))
        if not below:
            raise InputError(
                f"no run lies here: no folder with {' or '.join(_MARKS)}", "path", path
            )
        for run in below:
            found.setdefault(run.resolve(), run)
    if not found:
        raise InputError("name at least one run folder or sweep folder", "path", "")
    return sorted(found.values(), key=_natural)


def load_run(path: str | Path) -> Run:
    """Everything that the run folder `path` holds, also while the run is still going on.

    Raises:
        InputError: `path` is no run folder, or one of its files cannot be read.
    """
    path = Path(path)
    if not path.is_dir():
        raise InputError("there is no such folder", "path", path)
    if not is_run(path):
        raise InputError(f"is no run folder: it holds none of {', '.join(_MARKS)}", "path", path)
    summary = _read_json(path / "summary.json") or {}
    partition = _read_json(path / "partition.json")
    if partition is not None:
        # They say how to repeat the run, not how it went, and are most of the file.
        partition.pop("indices", None)
    return Run(
        path=path,
        config=_read_config(path / "config.yaml"),
        summary=summary,
        metrics=_read_metrics(path, complete=summary.get("status") == "complete"),
        partition=partition,
        confusion=_read_confusion(path / "confusion_matrix.csv"),
        timing=pd.DataFrame(_read_lines(path / "timing.jsonl")),
    )


def _runs_below(path: Path) -> Iterator[Path]:
    for folder, names, _ in os.walk(path):
        names[:] = sorted(name for name in names if not name.startswith("."))
        if is_run(Path(folder)):
            names.clear()
            yield Path(folder)


def _natural(path: Path) -> list[tuple[float, str]]:
    pieces = re.findall(r"\d+|\D+", str(path))
    return [(int(piece) if piece.isdecimal() else math.inf, piece) for piece in pieces]


def _read_json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"is not valid JSON ({error})", "file", path) from None
    if not isinstance(content, dict):
        raise InputError("must hold one JSON object", "file", path)
    return content


def _read_config(path: Path) -> dict[str, Any]:
    from omegaconf import OmegaConf

    if not path.is_file():
        return {}
    try:
        config = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except Exception as error:  # OmegaConf lets the parser's own kinds of error through
        line = " ".join(str(error).split())
        raise InputError(f"is not a YAML mapping ({line})", "file", path) from None
    if not isinstance(config, dict):
        raise InputError("is not a YAML mapping", "file", path)
    return {str(key): value for key, value in config.items()}


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file; a last line that was cut off is left out."""
    if not path.is_file():
        return []
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    try:
        rows: list[dict[str, Any]] = json.loads(f"[{','.join(lines)}]")
    except ValueError:
        rows = list(_one_by_one(path, lines))
    return rows


def _one_by_one(path: Path, lines: list[str]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, start=1):
        try:
            yield json.loads(line)
        except ValueError:
            # A run that was killed, or is writing right now, leaves half a line at the end.
            if number < len(lines):
                raise InputError(f"line {number} is not valid JSON", "file", path) from None


def _read_metrics(folder: Path, complete: bool) -> pd.DataFrame:
    jsonl, csv = folder / "metrics.jsonl", folder / "metrics.csv"
    # Until a run is complete its CSV may lack the last lines; afterwards it is faster to read.
    if csv.is_file() and (complete or not jsonl.is_file()):
        try:
            rows = pd.read_csv(csv, dtype={"client": str})
        except (ValueError, pd.errors.ParserError) as error:
            raise InputError(f"is not a metrics table ({error})", "file", csv) from None
    else:
        rows = pd.DataFrame(_read_lines(jsonl), columns=COLUMNS)
    if missing := [name for name in COLUMNS if name not in rows]:
        raise InputError(f"lacks the columns {', '.join(missing)}", "file", csv)
    rows = rows[COLUMNS].astype(
        {"round": "int64", "scope": str, "client": str, "metric": str, "value": "float64"}
    )
    # A run that was killed and resumed may have written its last rounds twice.
    return rows.drop_duplicates(COLUMNS[:4], keep="last").sort_values("round", kind="stable")


def _read_confusion(path: Path) -> pd.DataFrame | None:
    if not path.is_file():
        return None
    try:
        counts = pd.read_csv(path)
    except ValueError as error:
        raise InputError(f"is not a table of counts ({error})", "file", path) from None
    if counts.shape[0] != counts.shape[1]:
        rows, columns = counts.shape
        raise InputError(f"must be square, is {rows} x {columns}", "file", path)
    return counts.set_axis(counts.columns, axis=0)
