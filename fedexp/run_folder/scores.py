"""The scores of a run so far: what `summary.json` says, from the rows of `metrics.csv`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, final

from fedexp.core.metric import Metric
from fedexp.core.objective import direction_of

PARTS = ("validation", "test", "attack")
SHARED = ("all", "mean")  # the shared model, or the mean over the clients' own models
OVER_CLIENTS = ("mean", "std", "min", "max")
COUNTS = ("dropped", "skipped", "caught", "missed", "false_alarms")  # of the server's checks
LAST = 5  # rounds of evaluation in `mean_last_5`


@final
class Scores:
    """Takes in one round at a time; never looks at earlier rows again."""

    def __init__(self) -> None:
        self._evaluations: list[tuple[int, dict[str, dict[str, float]]]] = []
        self._over_clients: dict[str, dict[str, dict[str, float]]] = {}
        self._totals = dict.fromkeys(("bytes_up", "bytes_down", "examples", *COUNTS), 0.0)
        self._seconds = self._train_seconds = 0.0
        self.rounds = 0

    def add(self, rows: Sequence[Metric], seconds: float, train_seconds: float) -> None:
        """Take in the rows of one round and its duration."""
        parts: dict[str, dict[str, float]] = {}
        over: dict[str, dict[str, dict[str, float]]] = {}
        for row in rows:
            self.rounds = max(self.rounds, row.round)
            if row.scope in PARTS and row.client in SHARED:
                parts.setdefault(row.scope, {})[row.metric] = row.value
            if row.scope in PARTS and row.client in OVER_CLIENTS:
                over.setdefault(row.scope, {}).setdefault(row.metric, {})[row.client] = row.value
            if row.scope == "round" and row.metric in self._totals:
                self._totals[row.metric] += row.value
        if parts:
            self._evaluations.append((self.rounds, parts))
            self._over_clients = over
        self._seconds += seconds
        self._train_seconds += train_seconds

    def latest(self, part: str, metric: str) -> float:
        """The value at the last evaluation; NaN before the first."""
        if not self._evaluations:
            return math.nan
        return self._evaluations[-1][1].get(part, {}).get(metric, math.nan)

    def best_round(self, metric: str) -> int | None:
        """The first round whose validation `metric` is the best so far; a loss is best when low."""
        sign = 1 if direction_of(metric) == "maximize" else -1
        scores = [
            (sign * parts["validation"][metric], -round)
            for round, parts in self._evaluations
            if math.isfinite(parts.get("validation", {}).get(metric, math.nan))
        ]
        return -max(scores)[1] if scores else None

    def document(self, last_rounds: int | None = None) -> dict[str, Any]:
        """What `summary.json` says of the rounds so far; the caller's own to add to.

        With `last_rounds` also `mean_last_rounds`, over the evaluations in so many last rounds:
        papers average over rounds, however often they evaluate.
        """
        latest = self._evaluations[-1][1] if self._evaluations else {}
        return {
            "rounds": self.rounds,
            "final": {part: dict(metrics) for part, metrics in latest.items()},
            "mean_last_5": _mean([parts for _, parts in self._evaluations[-LAST:]]),
            **self._over_the_last(last_rounds),
            "final_over_clients": self._over_clients,
            "bytes_up": int(self._totals["bytes_up"]),
            "bytes_down": int(self._totals["bytes_down"]),
            "examples": int(self._totals["examples"]),
            "totals": {name: int(self._totals[name]) for name in COUNTS},
            "seconds": self._seconds,
            "examples_per_second": self._totals["examples"] / self._train_seconds
            if self._train_seconds
            else None,
        }

    def _over_the_last(self, rounds: int | None) -> dict[str, Any]:
        if rounds is None:
            return {}
        late = [parts for round, parts in self._evaluations if round > self.rounds - rounds]
        return {"mean_last_rounds": _mean(late)}


def _mean(evaluations: Sequence[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Metric by metric, of those that all of them have.

    >>> _mean([{"test": {"loss": 1.0}}, {"test": {"loss": 2.0}}])
    {'test': {'loss': 1.5}}
    """
    if not evaluations:
        return {}
    return {
        part: {
            metric: sum(e[part][metric] for e in evaluations) / len(evaluations)
            for metric in metrics
            if all(metric in e.get(part, {}) for e in evaluations)  # not all need measure it
        }
        for part, metrics in evaluations[-1].items()
    }
