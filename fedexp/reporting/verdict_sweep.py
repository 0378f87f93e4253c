"""The verdicts of a sweep: what federation is worth to sites, over seeds.

A seed is what is repeated: the sites of one run share a model, a split and a draw of who holds
what. So a site's figures are first averaged over the sites of a run, and the interval is Student's
over the seeds, of paired differences. How many sites gain or are harmed is counted as each run's
own intervals say.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from fedexp.reporting.results import Run
from fedexp.reporting.tables import Configuration, configurations, job_names, spread, to_markdown
from fedexp.reporting.verdict import ROLES, Site, sites_of

LEVEL = 0.95
EVERY = "every site alike"


def verdict_table(runs: Sequence[Run]) -> pd.DataFrame:
    """One row a job, site and role: accuracy on the site's own patients, gain, outcome."""
    rows = []
    for run, job in zip(runs, job_names(runs), strict=True):
        for site in _sites(run):
            for role in site.of["roles"]:
                value, low, high = site.interval(role, "accuracy") or (None, None, None)
                gain = (site.of["gain"].get(role) or (None,))[0]
                rows.append(
                    {
                        "job": job,
                        "seed": run.seed,
                        "site": site.name,
                        "role": role,
                        "patients": site.of["patients"],
                        "accuracy": value,
                        "low": low,
                        "high": high,
                        "gain": gain,
                        "outcome": site.outcome if role == "federated" else "",
                    }
                )
    return pd.DataFrame(rows)


def verdict_sweep_markdown(runs: Sequence[Run]) -> str:
    """A row a configuration, and a row each of its sites where they are natural; "" without any."""
    judged = [run for run in runs if run.verdict]
    if not judged:
        return ""
    rows = [row for group in configurations(runs) for row in _rows(group)]
    note = (
        "Accuracy on each site's own test patients: mean ± standard deviation over seeds, sites "
        "of a run averaged first. Gain: federated less alone in points, paired, with a 95 % "
        "interval over the seeds. Gains, harmed, not told: sites of all seeds, each by the "
        "interval over its own patients."
    )
    return "\n\n".join([to_markdown(pd.DataFrame(rows)), note])


def _sites(run: Run) -> list[Site]:
    return sites_of(run.verdict) if run.verdict else []


def _rows(group: Configuration) -> Iterator[dict[str, Any]]:
    # Of repeats of a seed the last: as more seeds they would make intervals too narrow.
    judged = list({run.seed: run for run in group.complete if run.verdict}.values())
    if not judged:
        return
    yield _row(group.label, EVERY, [_sites(run) for run in judged])
    own = all(run.verdict and run.verdict["patients"] == "own" for run in judged)
    names = [site.name for site in _sites(judged[0])]
    named = own and not any(name.startswith("client ") for name in names)
    if named and all([site.name for site in _sites(run)] == names for run in judged):
        for k, name in enumerate(names):
            yield _row(group.label, name, [[_sites(run)[k]] for run in judged])


def _row(label: str, name: str, of_runs: Sequence[Sequence[Site]]) -> dict[str, Any]:
    row: dict[str, Any] = {"runs": label, "site": name, "seeds": len(of_runs)}
    for role in ROLES:
        means = [_mean_accuracy(sites, role) for sites in of_runs]
        row[role] = _spread(means)
    gains = [
        _mean_accuracy(sites, "federated") - _mean_accuracy(sites, "alone") for sites in of_runs
    ]
    row["gain"] = _paired(gains)
    outcomes = [site.outcome for sites in of_runs for site in sites]
    row["gains / harmed / not told"] = " / ".join(
        str(outcomes.count(outcome)) for outcome in ("gains", "is harmed", "cannot be told")
    )
    for role in sorted({r for sites in of_runs for s in sites for r in s.of["roles"]}):
        if role.endswith(", attacked"):
            honest = [[s for s in sites if not s.of.get("dishonest")] for sites in of_runs]
            row[role] = _spread([_mean_accuracy(sites, role) for sites in honest if sites])
    return row


def _mean_accuracy(sites: Sequence[Site], role: str) -> float:
    values = [interval[0] for s in sites if (interval := s.interval(role, "accuracy"))]
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else math.nan


def _spread(values: Sequence[float]) -> str:
    """Mean and deviation of those that are known.

    >>> _spread([0.8, 0.6]), _spread([0.8, math.nan])
    ('0.700 ± 0.141', '0.800')
    """
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return "-"
    deviation = float(np.std(known, ddof=1)) if len(known) > 1 else math.nan
    return spread(float(np.mean(known)), deviation)


def _paired(gains: Sequence[float]) -> str:
    """Mean and Student's interval in points; without one below two seeds."""
    known = [100 * gain for gain in gains if not math.isnan(gain)]
    if not known:
        return "-"
    mean = float(np.mean(known))
    if len(known) < 2:
        return f"{mean:+.1f}"
    from scipy.stats import t

    half = float(t.ppf((1 + LEVEL) / 2, len(known) - 1) * np.std(known, ddof=1) / len(known) ** 0.5)
    low, high = mean - half, mean + half
    return f"{_points(mean)} [{_points(low)}, {_points(high)}]"


def _points(gain: float) -> str:
    """With its sign, and no minus before what is rounded to nothing.

    >>> _points(-0.01), _points(-1.25)
    ('+0.0', '-1.2')
    """
    return f"{gain:+z.1f}"
