"""What Hydra needs to know of us: the types of the root keys, and the resolvers of `conf/`.

Light: no torch. `register()` has to run before a config is composed.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from omegaconf import MISSING, OmegaConf

from fedexp.core.checks import InputError, at_least, did_you_mean, in_range, positive
from fedexp.core.cores import available_cores
from fedexp.core.plots import Plots


@dataclass
class Paths:
    """Where files lie."""

    data_dir: str | None = MISSING


@dataclass
class Schema:
    """The root of a config. Values and their comments live in `conf/` only."""

    seed: int = MISSING
    rounds: int = MISSING
    n_clients: int = MISSING
    cohort_size: int = MISSING
    min_clients: int = MISSING
    max_failed_rounds: int = MISSING
    eval_every: Any = MISSING  # int, or auto
    checkpoint_every: int = MISSING
    assumed_malicious: int = MISSING
    train_examples: int | None = MISSING
    mean_last_rounds: int | None = MISSING
    objective: str = MISSING
    buffers: str = MISSING
    device: str = MISSING
    record_updates: Any = MISSING
    plots: Any = MISSING  # bool, or draw, format and style: see `fedexp.core.plots`
    quiet: bool = MISSING
    store: str = MISSING
    trust: list[str] = field(default_factory=list)
    dataset: Any = MISSING
    task: Any = MISSING
    partition: Any = MISSING
    model: Any = MISSING
    training: Any = MISSING
    algorithm: Any = MISSING
    worker_momentum: Any = MISSING
    sampler: Any = MISSING
    setting: Any = MISSING
    attack: Any = MISSING
    privacy: Any = MISSING
    channel: Any = MISSING
    update_validation: Any = MISSING
    detector: Any = MISSING
    pre_aggregation: dict[str, Any] = field(default_factory=dict)  # applied in this order
    aggregator: Any = MISSING
    server_optimizer: Any = MISSING
    backend: Any = MISSING
    early_stopping: Any = MISSING
    tracker: dict[str, Any] = field(default_factory=dict)  # each is told of every round
    leakage: dict[str, Any] = field(default_factory=dict)  # studies of the finished run
    verdict: dict[str, Any] = field(default_factory=dict)  # a comparison after the run
    paths: Paths = field(default_factory=Paths)
    # `from` is a word of Python's: no argument of a constructor, and no name in a class.
    __annotations__["from"] = "str | None"
    vars()["from"] = field(default=None, init=False, repr=False, compare=False)


def check_root_keys(container: Mapping[Any, Any]) -> None:
    """Refuse what a schema lets pass: root keys added with `+`, taken away with `~`, or lost."""
    known = [key.name for key in fields(Schema)]
    for key, value in container.items():
        if key not in known:
            suggestion = did_you_mean(key, known)
            raise InputError(
                f"there is no such key; {suggestion}Known: {', '.join(known)}", key, value
            )
    for name in known:
        if name not in container:
            raise InputError("has no value", name, "")
    Plots.of(container["plots"])


_WORKERS = {
    "_target_": "hydra_plugins.fedexp_workers.Workers",
    "workers": "${fedexp.cores:}",  # jobs at once
    "jobs_per_worker": 100,  # after so many a worker is replaced by a new one
}
"""What `hydra/launcher=workers` says, see `fedexp.commands.workers`."""


def register() -> None:
    """Make the schema and the resolvers known. Calling it twice is harmless."""
    from hydra.core.config_store import ConfigStore

    ConfigStore.instance().store(name="schema", node=Schema)
    ConfigStore.instance().store(name="workers", node=dict(_WORKERS), group="hydra/launcher")
    resolvers: dict[str, Callable[..., Any]] = {
        "fedexp.share": _share,
        "fedexp.cohort_share": _cohort_share,
        "fedexp.everybody": _everybody,
        "fedexp.cores": available_cores,
        "fedexp.ratio": ratio,
        "fedexp.unless": unless,
        "fedexp.by": by,
        "fedexp.folder_name": folder_name,
    }
    for name, function in resolvers.items():
        OmegaConf.register_new_resolver(name, function, replace=True)


def share(fraction: float, n: int, extra: bool = False) -> int:
    """The share of all clients that the adversary controls, as a whole number, to the nearest.

    All are n, or where its clients are `extra`, n and these.

    >>> share(0.25, 10), share(0.25, 8), share(0.25, 12, extra=True)
    (2, 2, 4)
    """
    in_range(0, 1, **{"attack.fraction": fraction})
    if extra and fraction == 1:
        reason = (
            "with attack.extra_clients=true the honest clients are a share too: use less than 1"
        )
        raise InputError(reason, "attack.fraction", fraction)
    return round(fraction * n / (1 - fraction) if extra else fraction * n)


def cohort_share(n_malicious: int, cohort_size: int, n_clients: int) -> int:
    """The attackers to expect among the clients of a round, rounded up.

    >>> cohort_share(25, 10, 100)
    3
    """
    at_least(0, **{"attack.n_malicious": n_malicious})
    return math.ceil(n_malicious * cohort_size / max(n_clients, 1))


def _share(fraction: float, n_clients: int, *, _root_: Any) -> int:
    return share(fraction, n_clients, _adds_clients(_root_))


def _cohort_share(n_malicious: int, cohort_size: int, n_clients: int, *, _root_: Any) -> int:
    return cohort_share(n_malicious, cohort_size, _everybody(n_clients, _root_=_root_))


def _everybody(n_clients: int, *, _root_: Any) -> int:
    """All who may take part in a round: malicious clients on top of n_clients are counted."""
    return n_clients + (_root_.attack.n_malicious if _adds_clients(_root_) else 0)


def _adds_clients(root: Any) -> bool:
    return OmegaConf.select(root, "attack.extra_clients", default=False) is True


def ratio(numerator: float, denominator: float) -> float:
    """For work that is shared out over the rounds.

    >>> ratio(6, 24)
    0.25
    """
    positive(denominator=denominator)
    return numerator / denominator


def unless(value: float, *others: float | None) -> float | None:
    """The value; null as soon as one of the keys that could stand in its place has one.

    >>> unless(1.0, None), unless(1.0, None, 8.0)
    (1.0, None)
    """
    return value if all(other is None for other in others) else None


def by(word: str, table: Mapping[str, Any]) -> Any:
    """What a table says of a word; of a word that is not in it the part says what is wrong.

    >>> by("digits", {"digits": 10, "letters": 26})
    10
    """
    return table.get(word, 0)


def folder_name(overrides: str, number: int) -> str:
    """A job's folder in a sweep: its overrides where they make a name, else number and digest.

    >>> folder_name("seed=1,partition.alpha=0.1", 3)
    'seed=1,partition.alpha=0.1'
    """
    plain = re.sub(r"[^\w.,=+-]+", "_", str(overrides))
    if not plain:
        return str(number)
    if len(plain) <= 120:
        return plain
    return f"{plain[:100]}...{hashlib.sha256(overrides.encode()).hexdigest()[:8]}"
