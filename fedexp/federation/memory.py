"""What clients keep of their own updates between rounds: worker momentum, or nothing.

    m_k <- beta m_k + (1 - beta) delta_k,   m_k = delta_k when client k first takes part

and the client sends m_k. The noise in m_k is smaller by about sqrt((1 - beta) / (1 + beta)), so
that honest clients agree better and a robust rule has less room to be misled.

Sources: El Mhamdi, Guerraoui and Rouault, "Distributed Momentum for Byzantine-resilient Stochastic
Gradient Descent", ICLR 2021; Karimireddy, He and Jaggi, "Learning from History for Byzantine Robust
Optimization", ICML 2021, algorithm 2. There on gradients, here on updates; with one local step the
two are the same up to the learning rate.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch
from torch import Tensor

from fedexp.core.checks import InputError, at_least
from fedexp.core.stateless import Stateless
from fedexp.core.types import State, Updates

MOST_BYTES = 4 * 2**30  # of all clients' momenta together; they are in every checkpoint too


@final
@dataclass(frozen=True)
class NoMemory(Stateless):
    """Clients forget everything when a round ends, as in FedAvg."""

    does_nothing: ClassVar[bool] = True

    def widened(self, n_all: int) -> NoMemory:
        """For so many clients."""
        return self

    def __call__(self, updates: Updates, state: State) -> tuple[Updates, State]:
        """The rows unchanged."""
        return updates, state


@final
@dataclass(frozen=True)
class WorkerMomentum:
    """Every client sends a running average of its own updates.

    Args:
        worker_momentum: beta, from 0 (no memory) to below 1.
        n_clients: how many clients there are.
    """

    worker_momentum: float
    n_clients: int

    def __post_init__(self) -> None:
        if not 0 <= self.worker_momentum < 1:
            raise InputError(
                "must be at least 0 and below 1", "worker_momentum", self.worker_momentum
            )
        at_least(1, n_clients=self.n_clients)

    def init(self, d: int) -> State:
        """Every client's momentum `[n_clients, d]`, and who has one `[n_clients]` bool."""
        if self.n_clients * d * 4 > MOST_BYTES:
            raise InputError(
                f"{self.n_clients} clients' momenta of {d} numbers take more than "
                f"{MOST_BYTES / 2**30:g} GiB; use fewer clients or a smaller model",
                "worker_momentum",
                self.worker_momentum,
            )
        return {
            "momentum": torch.zeros(self.n_clients, d),
            "seen": torch.zeros(self.n_clients, dtype=torch.bool),
        }

    def widened(self, n_all: int) -> WorkerMomentum:
        """For so many clients."""
        return replace(self, n_clients=n_all)

    def __call__(self, updates: Updates, state: State) -> tuple[Updates, State]:
        """Rows `[n, d]` replaced by the clients' momenta."""
        clients = torch.tensor(updates.client_ids, dtype=torch.int64)
        momentum, seen = state["momentum"].clone(), state["seen"].clone()
        beta = torch.where(seen[clients], self.worker_momentum, 0.0)[:, None]
        rows: Tensor = updates.matrix.to(momentum.device)
        momentum[clients] = beta * momentum[clients] + (1 - beta) * rows
        seen[clients] = True
        sent = momentum[clients].to(updates.matrix.device)
        return updates.with_matrix(sent), {"momentum": momentum, "seen": seen}
