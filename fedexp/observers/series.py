"""The record as trackers take it: one number a name and round.

`test/accuracy` is the shared model's, `test/accuracy_mean` (std, min, max) is taken over the
clients' own models, `test/own_mix_accuracy_client3` is client 3's.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from fedexp.core.checks import InputError
from fedexp.core.metric import Metric


def figures(rows: Sequence[Metric], clients: bool) -> dict[str, float]:
    """The figures of one round by name; those that are not defined are left out.

    >>> figures([Metric(1, "test", "all", "loss", 0.5), Metric(1, "train", "3", "loss", 0.1)], True)
    {'test/loss': 0.5, 'train/loss_client3': 0.1}
    """
    return {
        _name(row): float(row.value)
        for row in rows
        if math.isfinite(row.value) and (clients or not row.client.isdigit())
    }


def by_round(rows: Iterable[Metric], clients: bool) -> Iterator[tuple[int, dict[str, float]]]:
    """(round, its figures) of rows in the order of their rounds."""
    for number, of_round in groupby(rows, key=lambda row: row.round):
        yield number, figures(list(of_round), clients)


def leaves(config: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    """Every setting of a resolved config by its dotted name.

    >>> leaves({"training": {"lr": 0.1}, "trust": ["a."]})
    {'training.lr': 0.1, 'trust': ['a.']}
    """
    flat: dict[str, object] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= leaves(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def require(package: str) -> None:
    """Raise InputError unless the package behind a tracker is installed; it is not imported yet."""
    if importlib.util.find_spec(package) is None:
        raise InputError(f"is not installed: pip install 'fedexp[{package}]'", "package", package)


def _name(row: Metric) -> str:
    name = f"{row.scope}/{row.metric}"
    if row.client == "all":
        return name
    return f"{name}_client{row.client}" if row.client.isdigit() else f"{name}_{row.client}"
