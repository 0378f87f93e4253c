"""Worker momentum: clients send a running average of their own updates, or just the updates.

    damped:    m_k <- beta m_k + (1 - beta) delta_k
    undamped:  m_k <- beta m_k + delta_k

and the client sends m_k. Before client k takes part for the first time m_k is 0 (`start: zero`), or
there is none and m_k = delta_k at first (`first_update`). Undamped momentum grows to about
1 / (1 - beta) times the length of damped momentum. The noise in a damped m_k is smaller than that
in delta_k by about sqrt((1 - beta) / (1 + beta)), so that honest clients agree better and a robust
rule has less room to be misled.

Sources: El Mhamdi, Guerraoui and Rouault, "Distributed Momentum for Byzantine-resilient Stochastic
Gradient Descent", ICLR 2021 (undamped); Karimireddy, He and Jaggi, "Learning from History for
Byzantine Robust Optimization", ICML 2021, algorithm 2 (damped). There on gradients, here on
updates; with one local step the two are the same up to the learning rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import numpy as np
import torch
from torch import Tensor

from fedexp.core.capabilities import does_nothing, spares_malicious
from fedexp.core.checks import InputError, one_of
from fedexp.core.protocols import WorkerMomentum
from fedexp.core.types import State, Updates
from fedexp.federation.form import IN_PLACE, no_rows, no_state, refuse_form

START = ("first_update", "zero")


def in_place_of(
    momentum: WorkerMomentum, trained: Updates, kept: Sequence[State], d: int, malicious: np.ndarray
) -> tuple[Updates, list[State]]:
    """What clients have to send of what they `trained`, or to attack with, and what they keep.

    Args:
        momentum: called on all of them: who attacks now need not do so for ever.
        trained: by a cohort.
        kept: by each of its clients.
        d: numbers in a model.
        malicious: who attacks in this round, `[n]` bool.
    """
    averaged, momenta = _each_alone(momentum, trained, kept, d)
    if not malicious.any() or not spares_malicious(momentum):
        return averaged, momenta
    attackers = torch.from_numpy(malicious).to(averaged.matrix.device)
    rows = averaged.matrix.clone()
    rows[attackers] = trained.matrix[attackers]
    return averaged.with_matrix(rows), momenta


def _each_alone(
    momentum: WorkerMomentum, trained: Updates, kept: Sequence[State], d: int
) -> tuple[Updates, list[State]]:
    """As a call with all of them, but nobody's row can depend on another's.

    No client has the others' rows, and noise on a sum of clipped rows is for one row a client.
    """
    if does_nothing(momentum):
        return trained, [{} for _ in kept]
    rows, momenta = trained.matrix.clone(), []
    for k, before in enumerate(kept):
        own = trained.only(k)
        version = own.matrix._version
        told = momentum(own, [before], d)
        in_place = own.matrix._version != version
        wrong = IN_PLACE if in_place else _no_momenta(told, own.matrix)
        refuse_form(wrong, "worker_momentum", momentum)
        made, after = told
        rows[k : k + 1] = made.matrix
        momenta += after
    return trained.with_matrix(rows), momenta


def _no_momenta(told: object, row: Tensor) -> str:
    """What is wrong with what a momentum made of one client's row `[1, D]`; "": nothing."""
    if not (isinstance(told, tuple) and len(told) == 2):
        return f"must return (updates, kept), and returned a {type(told).__name__}"
    made, kept = told
    if not isinstance(kept, list) or len(kept) != 1:
        return "must return a list of what each client keeps, one for each row"
    return no_rows(made, row) or no_state(kept[0], "what a client keeps")


@final
@dataclass(frozen=True)
class NoMomentum:
    """Clients send what they have just trained, and keep nothing of it."""

    does_nothing: ClassVar[bool] = True

    def __call__(
        self, updates: Updates, kept: Sequence[State], d: int
    ) -> tuple[Updates, list[State]]:
        """The rows unchanged."""
        return updates, [{} for _ in kept]


@final
@dataclass(frozen=True)
class Momentum:
    """Every client sends a running average of its own updates; what else it sends is left alone.

    Args:
        beta: how much of the average stays, from 0 (nothing) to below 1.
        damped: whether the new update weighs 1 - beta; else 1.
        start: m_k before client k's first update: "first_update" (sent as it is) or "zero".
        malicious_too: whether malicious clients average as well before they attack; else an attack
            starts from what they have just trained, while rounds without one go on as ever.
    """

    beta: float
    damped: bool
    start: Literal["first_update", "zero"]
    malicious_too: bool = True  # as in runs of the time before there was such a key

    def __post_init__(self) -> None:
        if not 0 <= self.beta < 1:
            raise InputError("must be at least 0 and below 1", "beta", self.beta)
        one_of(START, start=self.start)

    @property
    def spares_malicious(self) -> bool:
        """Whether who attacks does so without its momentum."""
        return not self.malicious_too

    def __call__(
        self, updates: Updates, kept: Sequence[State], d: int
    ) -> tuple[Updates, list[State]]:
        """Rows `[n, D]` with the clients' momenta in place of the deltas, and those momenta."""
        rows = updates.matrix.cpu().clone()
        for row, before in zip(rows, kept, strict=True):
            row[:d] = self._next(row[:d], before)
        momenta: list[State] = [{"momentum": row[:d]} for row in rows]
        return updates.with_matrix(rows.to(updates.matrix.device)), momenta

    def _next(self, delta: Tensor, before: State) -> Tensor:
        if self.beta == 0:  # also where m is infinite: nothing of it stays
            return delta
        beta = torch.tensor(self.beta)  # 1 - beta in the rows' own precision
        weight = 1 - beta if self.damped else torch.tensor(1.0)
        if before:
            return beta * before["momentum"] + weight * delta
        return delta if self.start == "first_update" else weight * delta
