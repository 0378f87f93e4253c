"""Who watches a run: told that it starts, of every round, and that it has ended.

The record, the lines on the terminal, the plots drawn meanwhile, early stopping and the trackers
are observers. They are told in one fixed order, the record first: whoever comes later finds on the
disk what it is told of.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from fedexp.core.metric import Metric
from fedexp.core.round_record import RoundRecord, ServerState


@dataclass(frozen=True)
class RunStart:
    """What a run is, at the moment at which it starts or goes on."""

    config: Mapping[str, Any]  # resolved
    folder: Path  # of the run
    about: Mapping[str, Any]  # what summary.json says beside the figures
    state: ServerState  # after the rounds completed so far: 0 of them in a new run
    recorded: Iterable[Metric]  # what these rounds measured, round by round


class Observer(Protocol):
    """Watches a run; structural, nothing is inherited."""

    def run_started(self, run: RunStart) -> str | None:
        """Before the first round, or the next one of a run that goes on.

        Gives why the run is to end at once; None for it to go on.
        """

    def round_done(self, state: ServerState, record: RoundRecord) -> str | None:
        """After every round. `record.received` lasts until the next one: copy what is kept.

        Gives why the run is to end with this round; None for it to go on.
        """

    def run_ended(self, summary: Mapping[str, Any]) -> None:
        """However it ended; `summary["status"]` says how: complete, interrupted or failed."""


def shared_figure(rows: Sequence[Metric], scope: str, metric: str) -> float | None:
    """What the shared model, or the clients' own models on average, got in a round; None: nothing.

    >>> shared_figure([Metric(1, "test", "all", "loss", 0.5)], "test", "loss")
    0.5
    """
    wanted = (scope, metric)
    return next(
        (r.value for r in rows if (r.scope, r.metric) == wanted and r.client in ("all", "mean")),
        None,
    )
