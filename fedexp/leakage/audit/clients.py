"""Canaries where the unit is one client: directions that nobody else's update has.

m further clients send, instead of an update, a vector far longer than the clip norm, which clipping
makes as long as it allows. Each has a direction of its own: random signs on a set of coordinates
that is its own, so that two canaries are orthogonal; for an L1 clip, behind which a spread-out
vector is no stronger, a single coordinate. What a canary that is out sends is what the adjacency of
the claim says:

    add_remove     nothing: it does not take part (noise in the sum), or sends zeros (in its row)
    replace_one    the opposite vector, 2 C away

The run keeps its clip norm, noise multiplier, rounds and sampling rate, and its own clients train
on their own data as ever; cohort and divisor grow with the federation. The score is an inner
product with the direction, summed over rounds:

    noise in the sum   of the model's movement; where the account does not count on the sampling of
                       clients, of the rounds in which the canary's turn came, which the server sees
    noise in the row   of the canary's row as the server received it

With server_optimizer=sgd the movement is the released step; with another one the score is a weaker
one, and as valid.

Sources: Andrew et al., "One-shot Empirical Privacy Estimation for Federated Learning", ICLR 2024
(canary clients with random directions); Steinke, Nasr and Jagielski, NeurIPS 2023 (in or out by a
coin, and the bound).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, final, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from fedexp.core.capabilities import root_examples
from fedexp.core.checks import InputError
from fedexp.core.protection import Plan, Protection
from fedexp.core.protocols import Backend, Sampler, Trainer
from fedexp.core.rng import generator
from fedexp.core.round_record import RoundRecord, ServerState
from fedexp.core.text import called
from fedexp.core.types import ClientTask, Updates
from fedexp.leakage.audit.canaries import (
    CanaryRun,
    ClaimsForMembers,
    NoEvaluation,
    NoisyRows,
    settled,
)
from fedexp.leakage.audit.sight import Apart
from fedexp.leakage.victim import Victim

LONG = 1000.0  # clip norms: what a canary sends before clipping, also through worker momentum


@runtime_checkable
class Widens(Protocol):
    """A sampler to which clients can be added."""

    def widened(self, n: int, n_all: int) -> Sampler:
        """A cohort that is the same share of `n_all` clients as this one is of `n`."""


@final
@dataclass(frozen=True)
class Directions:
    """Orthogonal unit vectors: canary i has `signs[i]` at `coordinates[i]`, zeros elsewhere."""

    coordinates: Tensor  # [m, s] int64, all different
    signs: Tensor  # [m, s] float32, 1 or -1

    @classmethod
    def drawn(cls, m: int, d: int, spread: bool, rng: np.random.Generator) -> Directions:
        """For m canaries in d dimensions; over as many coordinates as there are, or over one.

        Raises:
            InputError: more canaries than dimensions.
        """
        if m > d:
            raise InputError(f"no more than the {d} numbers of the model", "canaries", m)
        size = d // m if spread else 1
        coordinates = torch.from_numpy(rng.permutation(d)[: m * size].reshape(m, size))
        signs = torch.from_numpy(rng.choice([-1.0, 1.0], (m, size))).float()
        return cls(coordinates, signs)

    def rows(self, canaries: Tensor, lengths: Tensor, d: int) -> Tensor:
        """What canaries `[k]` send: `[k, d]`, of signed `lengths` `[k]`."""
        values = self.signs[canaries] * (lengths / math.sqrt(self.signs.shape[1]))[:, None]
        return torch.zeros(len(canaries), d).scatter_(1, self.coordinates[canaries], values)

    def along(self, vector: Tensor) -> Tensor:
        """Inner products of all with one vector `[d]`: `[m]` float64."""
        picked = vector.cpu()[self.coordinates].double() * self.signs
        return torch.sum(picked, dim=1) / math.sqrt(self.signs.shape[1])


@final
@dataclass(frozen=True)
class WithCanaryClients:
    """A backend that answers itself for the canaries, who are the last clients."""

    backend: Backend
    n_clients: int  # without them
    directions: Directions
    lengths: Tensor  # [m] float32, signed; 0 for one that sends zeros

    def train(self, trainer: Trainer, tasks: Sequence[ClientTask]) -> Updates:
        """The other clients' updates, and the canaries' vectors behind them."""
        own = [task for task in tasks if task.client_id < self.n_clients]
        trained = self.backend.train(trainer, own)
        ids = tuple(task.client_id for task in tasks[len(own) :])
        canaries = torch.tensor(ids, dtype=torch.int64) - self.n_clients
        rows = self.directions.rows(canaries, self.lengths[canaries], trained.matrix.shape[1])
        nothing = dict.fromkeys(trained.metrics[0] if own else (), float("nan"))
        return replace(
            trained,
            matrix=torch.cat([trained.matrix, rows.to(trained.matrix)]),
            client_ids=(*trained.client_ids, *ids),
            num_examples=torch.cat([trained.num_examples, torch.ones(len(ids)).double()]),
            metrics=(*trained.metrics, *(nothing for _ in ids)),
            kept=(*trained.kept, *({} for _ in ids)),
        )

    def evaluate(self, models: Sequence[Tensor], split: str) -> list[Tensor]:
        """As the backend inside."""
        return self.backend.evaluate(models, split)

    def close(self) -> None:
        """As the backend inside."""
        self.backend.close()


@final
@dataclass(frozen=True)
class Without:
    """A sampler some of whose clients never come, though their turn does."""

    sampler: Sampler
    absent: np.ndarray  # [k] client numbers

    def __call__(self, n_clients: int, rng: np.random.Generator) -> np.ndarray:
        """The cohort of the sampler inside, without the absent ones."""
        cohort = self.sampler(n_clients, rng)
        return cohort[~np.isin(cohort, self.absent)]


@final
@dataclass(frozen=True)
class CanaryClients:
    """A run of client-level or local DP to which canary clients are added, ready to be repeated."""

    victim: Victim
    privacy: NoisyRows  # what runs, for so many more members
    sampler: Sampler
    protection: Protection  # its account is the audited training's
    directions: Directions

    @classmethod
    def settled(
        cls, victim: Victim, privacy: NoisyRows, m: int, rng: np.random.Generator
    ) -> CanaryClients:
        """With m canary clients more.

        Args:
            victim: the run.
            privacy: what its mechanism does to the rows, or to their sum.
            m: canaries.
            rng: draws the directions.

        Raises:
            InputError: the run has a sampler, or a rule with data of its own, that cannot be
                extended by clients; or it promises nothing with so many more of them.
        """
        exp, d = victim.experiment, len(victim.models[0])
        if root_examples(exp.server.aggregator):
            raise InputError(
                "compares clients with data of the server's own; no clients can be added to it",
                "aggregator",
                called(exp.server.aggregator),
            )
        n, n_all, mechanism = exp.n_clients, exp.n_clients + m, victim.mechanism
        if not isinstance(mechanism, ClaimsForMembers):
            raise InputError(
                "does not say what it would claim for more clients", "privacy", called(mechanism)
            )
        sampler = _widened(exp.sampler, n, n_all)
        plan = Plan(
            seed=exp.seed,
            rounds=exp.rounds,
            sampler=sampler,
            sizes=(*(len(shard) for shard in victim.partition.shards), *(1 for _ in range(m))),
            d=d,
            aggregator=exp.server.aggregator,
        )
        protection = settled(victim, mechanism.for_members(n, n_all), exp.trainer, plan, m)
        more = privacy.for_members(n, n_all)
        assert isinstance(more, NoisyRows)
        directions = Directions.drawn(m, d, privacy.row_order == 2, rng)
        return cls(victim, more, sampler, protection, directions)

    @property
    def central(self) -> bool:
        """Whether the noise is in the sum, not in the rows."""
        return self.privacy.releases_every_round

    @property
    def replaced(self) -> bool:
        """Whether a canary that is out sends the opposite, rather than nothing."""
        account = self.protection.account
        statement = account.statement(account.init())
        return statement is not None and statement["adjacency"] == "replace_one"

    @property
    def sees_turns(self) -> bool:
        """Whether the claim is one against who sees the cohorts."""
        return not getattr(self.victim.mechanism, "counts_on_sampling", False)

    def lengths(self, inside: np.ndarray) -> Tensor:
        """What canaries send, along their directions: `[m]` float32."""
        out = -1.0 if self.replaced else 0.0
        there = torch.from_numpy(inside)
        return LONG * self.privacy.row_bound * torch.where(there, 1.0, out)

    def run(self, seed: int, inside: np.ndarray, noise_scale: float) -> CanaryRun:
        """One training with those canaries in that `inside` `[m]` bool marks.

        Args:
            seed: of the training.
            inside: which canaries are in.
            noise_scale: factor on the noise that is really added; the claim knows nothing of it.
        """
        exp, directions, m = self.victim.experiment, self.directions, len(inside)
        n, n_all, sampler = exp.n_clients, exp.n_clients + m, self.sampler
        lengths = self.lengths(inside)
        central, replaced, sees_turns = self.central, self.replaced, self.sees_turns
        absent = n + np.flatnonzero(~inside) if central and not replaced else np.empty(0, np.int64)

        def movement(before: ServerState, after: ServerState, record: RoundRecord) -> Tensor:
            found = directions.along(after.params - before.params)
            if sees_turns:
                turn = sampler(n_all, generator(seed, "cohort", before.round))
                found[torch.from_numpy(~np.isin(n + np.arange(m), turn))] = 0
            return found

        def rows(before: ServerState, after: ServerState, record: RoundRecord) -> Tensor:
            found, received = torch.zeros(m, dtype=torch.float64), record.received
            assert received is not None
            for client, row in zip(received.client_ids, received.matrix, strict=True):
                if client >= n:
                    found[client - n] = directions.along(row)[client - n]
            return found

        with_canaries = replace(
            exp,
            seed=seed,
            n_clients=n_all,
            malicious=np.concatenate([exp.malicious, np.zeros(m, dtype=bool)]),
            sampler=Without(sampler, absent),
            backend=WithCanaryClients(exp.backend, n, directions, lengths),
            server=replace(
                exp.server, n_clients=n_all, privacy=self.privacy.with_noise(noise_scale)
            ),
            account=self.protection.account,
            evaluator=NoEvaluation(),
        )
        out = "the opposite vector" if replaced else "no update" if central else "zeros"
        return CanaryRun(
            experiment=with_canaries,
            score=movement if central else rows,
            sight=Apart(with_canaries),
            canaries=f"{m} clients beside the run's {n}, each with a vector of the clip norm in a "
            f"direction of its own, or {out}",
            adversary=(
                "Whoever sees the model after every round"
                + (" and whose turn it was" if sees_turns else "")
                + "; it knows the canaries' directions."
                if central
                else "The server, which sees every client's row and knows the canaries' directions."
            ),
        )


def _widened(sampler: Sampler, n: int, n_all: int) -> Sampler:
    """The sampler with a cohort that is the same share of more clients."""
    if not isinstance(sampler, Widens):
        raise InputError(
            "does not say how it would draw from more clients; use sampler=full, uniform or "
            "poisson",
            "sampler",
            called(sampler),
        )
    return sampler.widened(n, n_all)
