"""What stays with clients between rounds: in memory here, in a run's folder elsewhere.

Some parts of an experiment keep something with a client: its algorithm, its worker momentum, a
channel that sends later what it left out. In a store a client has one state, in which every part's
tensors have the part's name in front.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

from fedexp.core.protocols import ClientStore
from fedexp.core.round_record import Kept
from fedexp.core.types import State


@final
@dataclass(frozen=True)
class InMemory:
    """Keeps states as Python objects, for as long as a server state that knows them is there."""

    def keep(
        self, round: int, before: Mapping[int, Kept], states: Mapping[int, State]
    ) -> Mapping[int, Kept]:
        """`before`, with copies of the `states` of the clients that took part."""
        new = {
            client: _InMemory({name: t.detach().cpu().clone() for name, t in state.items()})
            for client, state in states.items()
        }
        return {**before, **new} if new else before


@final
@dataclass(frozen=True)
class _InMemory:
    tensors: State

    def read(self) -> State:
        return self.tensors


def read(clients: Mapping[int, Kept], client: int) -> State:
    """What a client keeps; nothing where it never took part."""
    return clients[client].read() if client in clients else {}


def of_part(state: State, part: str) -> State:
    """One part's own tensors out of a client's state.

    >>> of_part({"algorithm.control": 1, "worker_momentum.momentum": 2}, "algorithm")
    {'control': 1}
    """
    prefix = f"{part}."
    return {k.removeprefix(prefix): t for k, t in state.items() if k.startswith(prefix)}


def keep(
    store: ClientStore,
    round: int,
    before: Mapping[int, Kept],
    clients: Sequence[int],
    **parts: Sequence[State],
) -> Mapping[int, Kept]:
    """What all clients keep after a round.

    Args:
        store: where it shall lie.
        round: rounds completed with this one.
        before: what all clients kept before it.
        clients: who took part.
        parts: for each part by its name, what it keeps with each of them.
    """
    states: dict[int, State] = {
        client: {
            f"{part}.{name}": tensor
            for part, states in parts.items()
            for name, tensor in states[k].items()
        }
        for k, client in enumerate(clients)
    }
    return store.keep(round, before, {client: state for client, state in states.items() if state})
