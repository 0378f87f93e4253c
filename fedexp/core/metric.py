"""What is measured of a run. Imports nothing: whoever reads a record needs no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """One measured number. `metrics.csv` is a list of these.

    `scope` says on what it was measured (train, validation, test, round); `client` is a client's
    number, "all" for the shared model, or mean / std / min / max over the clients' own models.
    """

    round: int
    scope: str
    client: str
    metric: str
    value: float
