"""A part can do what its group is asked for: the methods of the group's protocol are there.

Somebody's own part, or one of another group in the wrong place, would fail when it is first called,
in the middle of a run. What its methods return is looked at where they are called.
"""

from __future__ import annotations

from collections.abc import Mapping

from fedexp.core import protocols
from fedexp.core.checks import InputError
from fedexp.core.protection import Mechanism
from fedexp.core.text import called

PROTOCOLS: Mapping[str, type] = {
    "aggregator": protocols.Aggregator,
    "algorithm": protocols.Algorithm,
    "attack": protocols.Attack,
    "channel": protocols.Channel,
    "detector": protocols.Detector,
    "partition": protocols.Partitioner,
    "pre_aggregation": protocols.PreAggregator,
    "privacy": Mechanism,
    "sampler": protocols.Sampler,
    "server_optimizer": protocols.ServerOptimizer,
    "task": protocols.Task,
    "training": protocols.Trainer,
    "update_validation": protocols.UpdateValidation,
    "worker_momentum": protocols.WorkerMomentum,
}


def refuse_another_kind(part: object, group: str) -> None:
    """Raise InputError where a part lacks a method of its group's protocol.

    >>> refuse_another_kind(print, "sampler")  # it can be called; what it returns is seen then
    """
    if (protocol := PROTOCOLS.get(group)) is None:
        return
    missing = [name for name in methods_of(protocol) if not callable(getattr(part, name, None))]
    if missing:
        names = ", ".join(f"{name}(...)" for name in missing)
        raise InputError(f"is no {group}: it has no {names}", group, called(part))


def methods_of(protocol: type) -> list[str]:
    """What an object of the protocol can be asked for, `__call__` included."""
    return [
        name
        for name, value in vars(protocol).items()
        if callable(value) and (name == "__call__" or not name.startswith("_"))
    ]
