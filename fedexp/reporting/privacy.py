"""What a run promised about privacy, in words: the statement in its report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fedexp.core.text import rounded_up
from fedexp.reporting.results import Run

SIZES_OF_NOISE = (
    *("clip_norm", "first_clip_norm", "clip_norm_l1", "l1_sensitivity", "l2_sensitivity"),
    *("noise_multiplier", "noise_std", "noise_scale", "epsilon_per_release"),
    *("scale", "expected_cohort"),
)
"""What a statement says of the noise, where the mechanism does (`Description.noise`)."""
_NEIGHBOURS = {
    "add_remove": "added or removed",
    "zero_out": "as it is or with zeros for an update",
    "replace_one": "replaced by another",
}


def epsilon_of(run: Run) -> float:
    """The run's epsilon at its end, infinite without noise; NaN where there was no mechanism."""
    promise = run.summary.get("privacy")
    if not promise:
        return math.nan
    value = promise.get("epsilon")  # JSON has no infinity
    return math.inf if value is None else float(value)


def privacy_statement(run: Run) -> str:
    """A paragraph that a reviewer can hold the run to; empty where there was no mechanism."""
    promise: Mapping[str, Any] = run.summary.get("privacy") or {}
    if not promise:
        return ""
    neighbours = _NEIGHBOURS.get(str(promise["adjacency"]), str(promise["adjacency"]))
    noise = ", ".join(
        f"{name.replace('_', ' ')} {promise[name]:.4g}"
        for name in SIZES_OF_NOISE
        if name in promise
    )
    if epsilon_of(run) == math.inf:
        return (
            f"{promise['mechanism']}. **Nothing is promised: epsilon is infinite** for "
            f"{promise['unit']} ({noise})."
        )
    sentences = [
        f"{promise['mechanism']}. **epsilon = {rounded_up(promise['epsilon'])} at delta = "
        f"{promise['delta']:g}** for {promise['unit']}, {neighbours}, after "
        f"{run.summary.get('rounds', '?')} rounds (accountant: {promise['accountant']}).",
        f"Noise ({noise}) is added by {promise['noise_added_by']}; it comes from "
        f"{promise['noise_source']}. Sampling: {promise['sampling']}.",
        f"{promise['note']}." if promise.get("note") else "",
        f"Not covered: {'; '.join(promise.get('not_covered') or ['nothing was left out'])}.",
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def privacy_line(run: Run) -> str:
    """The promise in one line; empty where there was no mechanism."""
    promise = run.summary.get("privacy") or {}
    if not promise:
        return ""
    if epsilon_of(run) == math.inf:
        return (
            f"Privacy: nothing is promised for {promise['unit']}, epsilon is infinite "
            f"({promise['mechanism']})"
        )
    return (
        f"Privacy: epsilon {rounded_up(promise['epsilon'])} at delta {promise['delta']:g} for "
        f"{promise['unit']} ({promise['mechanism']}; the report has the whole statement)"
    )
