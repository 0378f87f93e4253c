"""What is left of a round: the state that the next one starts from, and what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from fedexp.core.metric import Metric
from fedexp.core.types import State, Updates


class Kept(Protocol):
    """What one client keeps between rounds, wherever it lies."""

    def read(self) -> State:
        """The named tensors, on the CPU; not to be written to."""


STATES = ("optimizer", "algorithm", "aggregator", "detector", "privacy", "ledger", "attack")
"""Of parts, in a server's state."""


@dataclass(frozen=True)
class ServerState:
    """All that a checkpoint needs beside the resolved config."""

    round: int  # rounds completed
    params: Tensor  # [d], or [n_clients, d] where every client keeps a model of its own
    optimizer: State = field(default_factory=dict)
    aggregator: State = field(default_factory=dict)
    detector: State = field(default_factory=dict)
    algorithm: State = field(default_factory=dict)  # the server's part of the algorithm
    privacy: State = field(default_factory=dict)  # of the mechanism, such as a clip norm that moves
    ledger: State = field(default_factory=dict)  # what the promise has cost so far
    attack: State = field(default_factory=dict)  # what the adversary has learned so far
    clients: Mapping[int, Kept] = field(default_factory=dict)  # of those who ever took part
    failed_rounds: int = 0  # the latest rounds in a row that moved nothing

    def copied(self) -> ServerState:
        """With tensors of its own: who writes to them writes to nobody else's."""
        parts: dict[str, Any] = {
            part: {name: tensor.clone() for name, tensor in getattr(self, part).items()}
            for part in STATES
        }
        return replace(self, params=self.params.clone(), **parts)

    def apart_from(self, rows: Tensor) -> ServerState:
        """With copies of what parts keep as views of `rows`, which the next round overwrites."""
        memory = _memory(rows)

        def apart(tensor: Tensor) -> Tensor:
            return tensor.clone() if _memory(tensor) == memory else tensor

        parts: dict[str, Any] = {
            part: {name: apart(tensor) for name, tensor in getattr(self, part).items()}
            for part in STATES
        }
        return replace(self, params=apart(self.params), **parts)

    def to(self, device: torch.device) -> ServerState:
        """With what goes into the next step on a device.

        Detectors look at short forms of the rows, which lie on the CPU, and what is counted does.
        """
        named = ("optimizer", "aggregator", "algorithm", "privacy", "attack")
        moved: dict[str, Any] = {
            part: {name: tensor.to(device) for name, tensor in getattr(self, part).items()}
            for part in named
        }
        return replace(self, params=self.params.to(device), **moved)


@dataclass(frozen=True)
class Cause:
    """Why a round moved nothing."""

    group: str  # of the part that it was
    words: str  # what that did, to go on from its name


@dataclass(frozen=True)
class RoundRecord:
    """What happened in one round. Only `seconds` may differ between two runs of one config."""

    round: int
    metrics: tuple[Metric, ...]
    predictions: Tensor | None  # [n_test] the shared model's answers, in rounds that evaluate
    seconds: Mapping[str, float]  # by phase: train, transmit, aggregate, evaluate
    notes: tuple[str, ...] = ()  # what a person should know, in sentences
    received: Updates | None = None  # what the server got; its rows last until the next round
    malicious: tuple[bool, ...] = ()  # [n] which of them the adversary sent
    members: tuple[tuple[int, ...], ...] = ()  # [n] the clients that are in each of them
    cause: Cause | None = None  # of a round that moved nothing, where it was a part's doing


def _memory(tensor: Tensor) -> tuple[bool, int]:
    """What tells the memory that a tensor lies in; NumPy has ways into that of the processor."""
    storage = tensor.untyped_storage()
    return tensor.is_cpu, storage.data_ptr() if tensor.is_cpu else storage._cdata
