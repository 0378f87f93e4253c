"""Early stopping: end a run whose validation metric no longer gets better.

    stop after `patience` evaluations in a row without  sign * value > best + min_delta

with sign = -1 for a loss, which is better when low, else 1. Recorded figures alone decide, so a run
that was interrupted and goes on stops at the same round as one that was not.

Source: Prechelt, "Early Stopping - But When?", in Neural Networks: Tricks of the Trade, LNCS 1524,
1998, the criterion UP.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, final

from fedexp.core.checks import at_least, non_negative, one_of
from fedexp.core.observer import RunStart, shared_figure
from fedexp.core.round_record import RoundRecord, ServerState


@final
class EarlyStopping:
    """Ends a run after `patience` evaluations without an improvement; None never ends it.

    Args:
        patience: evaluations (not rounds, see `eval_every`) in a row that may bring nothing.
        metric: of the validation part: a name in `metrics`.
        min_delta: what has to be gained to count, in units of the metric.
        metrics: what the task measures.
    """

    def __init__(
        self, patience: int | None, metric: str, min_delta: float, metrics: Sequence[str]
    ) -> None:
        if patience is not None:
            at_least(1, patience=patience)
        one_of(metrics, metric=metric)
        non_negative(min_delta=min_delta)
        self._patience, self._metric, self._min_delta = patience, metric, min_delta
        self._sign = -1.0 if metric == "loss" else 1.0
        self._forget()

    @property
    def does_nothing(self) -> bool:
        """Whether it never ends a run."""
        return self._patience is None

    def _forget(self) -> None:
        self._best, self._best_round, self._waited = -math.inf, 0, 0

    def run_started(self, run: RunStart) -> str | None:
        """Look through the rounds that are recorded already."""
        self._forget()
        reason = None
        for number, rows in groupby(run.recorded, key=lambda row: row.round):
            reason = reason or self._judge(
                number, shared_figure(list(rows), "validation", self._metric)
            )
        return reason

    def round_done(self, state: ServerState, record: RoundRecord) -> str | None:
        """Judge the round, if it was evaluated."""
        value = shared_figure(record.metrics, "validation", self._metric)
        return self._judge(record.round, value)

    def run_ended(self, summary: Mapping[str, Any]) -> None:
        """Nothing to give back."""

    def _judge(self, round: int, value: float | None) -> str | None:
        if self._patience is None or value is None:
            return None
        # An undefined figure (NaN) is no improvement.
        if self._sign * value > self._best + self._min_delta:
            self._best, self._best_round, self._waited = self._sign * value, round, 0
        else:
            self._waited += 1
        if self._waited < self._patience:
            return None
        best = f"its best, {self._sign * self._best:.4g}, was in round {self._best_round}"
        return (
            f"validation {self._metric} has not got better in {self._waited} evaluations "
            f"(early_stopping.patience={self._patience}); "
            f"{best if self._best_round else 'it was never defined'}"
        )
