"""Which trial of a sweep that optimises is the best, by what it was told to optimise.

A sweeper such as Optuna's chooses the next trial by the validation metric `objective`; test figures
are for afterwards. Whether a sweep optimises is seen in what Hydra wrote beside each job: then its
sweeper has a direction.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from fedexp.core.checks import InputError
from fedexp.core.documents import read_yaml_mapping
from fedexp.core.objective import Direction, direction_of
from fedexp.reporting.results import Run
from fedexp.reporting.tables import job_names, settings_of, short_names, to_markdown, varied_keys

DIRECTION = "hydra.sweeper.direction"


def told_direction(overrides: Sequence[str]) -> Direction | None:
    """What a command line says of the direction; None if it says nothing.

    >>> told_direction(["hydra/sweeper=optuna", "hydra.sweeper.direction=minimize"])
    'minimize'
    """
    said = [o.partition("=")[2] for o in overrides if o.lstrip("+").partition("=")[0] == DIRECTION]
    for direction in said[-1:]:
        return "minimize" if direction == "minimize" else "maximize"
    return None


def trials_markdown(runs: Sequence[Run]) -> str:
    """The trials from the best on, and the best by name; empty where nothing was optimised."""
    hydra = next((found for run in runs if (found := _hydra_of(run))), {})
    if "direction" not in (hydra.get("sweeper") or {}):
        return ""
    objective = next((str(r.config["objective"]) for r in runs if "objective" in r.config), "")
    told = told_direction((hydra.get("overrides") or {}).get("hydra") or [])
    direction = told or direction_of(objective)
    values = {run.path: run.final("validation", objective) for run in runs}
    complete = [r for r in runs if r.status == "complete" and not math.isnan(values[r.path])]
    if not complete:
        return ""
    sign = -1 if direction == "maximize" else 1
    ranked = sorted(complete, key=lambda run: sign * values[run.path])
    keys = varied_keys(runs)
    names = short_names(keys)
    jobs = dict(zip((run.path for run in runs), job_names(runs), strict=True))
    rows = [
        {
            "trial": jobs[run.path],
            **{names[key]: value for key, value in settings_of(run, keys).items()},
            f"validation {objective}": f"{values[run.path]:.4f}",
        }
        for run in ranked
    ]
    best = ranked[0]
    sentence = (
        f"Best of {len(complete)} trials by validation {objective} ({direction}d): "
        f"{jobs[best.path]}, {values[best.path]:.4f}."
    )
    return f"{sentence}\n\n{to_markdown(pd.DataFrame(rows))}"


def _hydra_of(run: Run) -> Mapping[str, Any]:
    """What Hydra wrote of itself beside a job; empty where that cannot be read."""
    try:
        found = read_yaml_mapping(run.path / ".hydra" / "hydra.yaml").get("hydra")
    except (InputError, OSError):
        return {}
    return found if isinstance(found, Mapping) else {}
