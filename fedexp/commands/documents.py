"""Run folders as documents for a program: what `fedexp/schemas/run.json` and its like describe.

Keys are stable and always there; what is not known is null. Names that a run brings with it (of
metrics, clients, studies, groups) are the keys of maps, and nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedexp.reporting.finding import find_runs, is_run
from fedexp.reporting.results import Run, load_run
from fedexp.reporting.tables import job_names, settings_of, varied_keys
from fedexp.run_folder.findings import StudyRecord, read_findings

if TYPE_CHECKING:
    from fedexp.commands.model_files import Attacked

PROMISE = (
    *("mechanism", "unit", "adjacency", "epsilon", "delta", "accountant", "note", "sampling"),
    *("noise_added_by", "noise_source", "max_epsilon", "not_covered"),
)
"""Of every privacy statement; what else one says are the numbers of its noise."""

FILES = {
    "config": "config.yaml",
    "summary": "summary.json",
    "metrics": "metrics.csv",
    "model": "model.safetensors",
    "partition": "partition.json",
    "report": "report.md",
    "page": "report.html",
    "verdict": "verdict.json",
    "plots": "plots",
}


def of_folders(folders: Sequence[Path]) -> dict[str, Any]:
    """What was named: one run, or several; where they lie is told from the root on."""
    folders = [folder.absolute() for folder in folders]
    if len(folders) == 1 and is_run(folders[0]):
        return of_run(load_run(folders[0]))
    place = folders[0] if len(folders) == 1 else None
    return of_sweep(list(map(load_run, find_runs(folders))), place)


def of_run(run: Run) -> dict[str, Any]:
    """One run, as far as it has come."""
    said = run.summary
    return {
        "schema": "run/1",
        "folder": str(run.path),
        "description": run.description,
        "status": run.status,
        "error": run.error or None,
        "stopped": said.get("stopped"),
        "seed": run.seed,
        **{key: said.get(key) for key in ("rounds", "rounds_planned", "parameters", "device")},
        **{key: said.get(key) for key in ("seconds", "examples_per_second", "peak_memory_mb")},
        **{key: said.get(key) for key in ("bytes_up", "bytes_down")},
        "choices": run.choices,
        "overrides": [str(override) for override in run.config.get("overrides") or ()],
        "malicious_clients": list(said.get("malicious_clients") or ()),
        "remarks": [str(remark) for remark in said.get("remarks") or ()],
        **{key: _figures(said.get(key)) for key in ("final", "mean_last_5", "mean_last_rounds")},
        "final_over_clients": _maps(said.get("final_over_clients")),
        "sites": _maps(said.get("sites")),
        "privacy": promise(said.get("privacy")),
        "leakage": _figures(said.get("leakage")),
        "files": {
            name: str(path) if (path := run.path / file).exists() else None
            for name, file in FILES.items()
        },
    }


def of_sweep(runs: Sequence[Run], folder: Path | None) -> dict[str, Any]:
    """Several runs, each with the settings in which they differ."""
    keys = varied_keys(runs)
    return {
        "schema": "sweep/1",
        "folder": None if folder is None else str(folder),
        "jobs": [
            {"job": name, "settings": settings_of(run, keys), "run": of_run(run)}
            for name, run in zip(job_names(runs), runs, strict=True)
        ],
    }


def of_leakage(folder: Path) -> dict[str, Any]:
    """What the studies of a run have found."""
    return {
        "schema": "leakage/1",
        "folder": str(folder),
        "studies": [_of_study(one) for one in read_findings(folder)],
    }


def of_attacked(found: Attacked) -> dict[str, Any]:
    """What the studies of one model have found, a file's or a run's."""
    return {
        "schema": "attacked/1",
        "name": found.name,
        "path": str(found.path),
        "folder": str(found.folder),
        "conditions": dict(found.conditions),
        "assumed": list(found.said),
        "studies": [_of_study(one) for one in found.studies],
    }


def of_comparison(a: Attacked, b: Attacked) -> dict[str, Any]:
    """Two of them, and which conditions were not equal."""
    from fedexp.commands.comparison import unequal_conditions

    return {
        "schema": "comparison/1",
        "a": of_attacked(a),
        "b": of_attacked(b),
        "unequal": list(unequal_conditions(a, b)),
    }


def _of_study(found: StudyRecord) -> dict[str, Any]:
    return {
        "schema": "study/1",
        "name": found.name,
        "study": found.study,
        "adversary": found.adversary,
        "headline": dict(found.headline),
        "conclusions": list(found.conclusions),
        "seconds": found.seconds,
        "folder": str(found.folder),
    }


def _figures(by_part: Any) -> dict[str, dict[str, Any]]:
    return {part: dict(figures) for part, figures in (by_part or {}).items() if figures}


def _maps(nested: Any) -> dict[str, Any]:
    return dict(nested or {})


def promise(said: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The statement, its noise's numbers together."""
    if not said:
        return None
    others = {key: value for key, value in said.items() if key not in PROMISE}
    numbers = {k: v for k, v in others.items() if isinstance(v, int | float) and math.isfinite(v)}
    promise = {key: said.get(key) for key in PROMISE}
    return {**promise, "not_covered": list(said.get("not_covered") or ()), "noise": numbers}
