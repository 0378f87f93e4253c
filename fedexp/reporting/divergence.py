"""Whether the training of a run diverged: what honest clients sent could not be used.

A learning rate that is too large makes updates that are not finite. They are dropped, the run goes
on with the others, or with nobody, and is complete: its accuracy is that of a part of the clients.
"""

from __future__ import annotations

import math

from fedexp.reporting.results import Run

MARK = "†"
"""Stands behind a figure of runs that diverged."""

NOTE = (
    f"{MARK} diverged: updates of honest clients were dropped as unusable (not finite, or too "
    "long), or the last test loss is not a finite number."
)


def dropped_share(run: Run) -> float:
    """The share of all that honest clients sent that was dropped as unusable; NaN if not known."""
    totals = run.summary.get("totals") or {}
    if totals.get("dropped") is None:
        return math.nan
    if not totals["dropped"]:  # as nearly always: the metrics need not be read
        return 0.0
    rows = run.metrics
    malicious = {str(client) for client in run.summary.get("malicious_clients") or ()}
    of_updates = rows[(rows["scope"] == "update") & ~rows["client"].isin(malicious)]
    sent = int((of_updates["metric"] == "norm").sum())
    dropped = int((of_updates["metric"] == "dropped").sum())
    return dropped / sent if sent else 0.0


def diverged(run: Run) -> bool:
    """Whether an update of an honest client was dropped, or the last test loss is not finite."""
    return dropped_share(run) > 0 or "test" in parts_without_a_loss(run)


def parts_without_a_loss(run: Run) -> list[str]:
    """Where the model's last loss is not finite: its accuracy there is that of naming one class."""
    final = run.summary.get("final") or {}
    return sorted(
        part for part, last in final.items() if "loss" in last and not _finite(last["loss"])
    )


def marked(figure: str, diverged: int) -> str:
    """The figure, with a mark where runs that it was taken of diverged."""
    return f"{figure} {MARK}" if diverged and figure else figure


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
