"""fedexp: an experiment runner for federated learning.

    import fedexp

    run = fedexp.run(["aggregator=median", "rounds=50"])    what `fedexp run` does, from Python
    run.metrics                                             every measured number, a pandas frame
    fedexp.load("outputs/sweeps/attack_matrix-1a2b3c4d")    a finished run, or a sweep of them
    fedexp.aggregate(rule, rows)                            a rule on a plain `[n, d]` array
    fedexp.testing.check_aggregator(rule)                   does a rule of yours keep the contract?

Importing it costs nothing: torch and the others are imported when they are first needed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from fedexp.core.checks import InputError

if TYPE_CHECKING:
    from fedexp import testing
    from fedexp.aggregation.plain import aggregate
    from fedexp.api import Run, Sweep, load, run

__version__ = "0.2.0"
__all__ = ["InputError", "Run", "Sweep", "__version__", "aggregate", "load", "run", "testing"]

_PLACES = {
    "Run": "fedexp.api",
    "Sweep": "fedexp.api",
    "load": "fedexp.api",
    "run": "fedexp.api",
    "aggregate": "fedexp.aggregation.plain",
}


def __getattr__(name: str) -> object:
    """Import what is asked for (PEP 562)."""
    if name == "testing":
        return importlib.import_module("fedexp.testing")
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'fedexp' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
