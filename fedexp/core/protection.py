"""What a run is going to release, and what is done about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, final, runtime_checkable

import numpy as np

from fedexp.core.attack_schedule import AttackSchedule
from fedexp.core.capabilities import Sampling, sampling_of
from fedexp.core.checks import InputError
from fedexp.core.cohort import drawn
from fedexp.core.draws import NEVER, contradiction
from fedexp.core.protocols import (
    Account,
    Aggregator,
    Algorithm,
    Attack,
    Channel,
    Detector,
    PreAggregator,
    Privacy,
    Sampler,
    ServerOptimizer,
    Setting,
    Trainer,
    UpdateValidation,
    WorkerMomentum,
)
from fedexp.core.rng import generator
from fedexp.core.text import called


@runtime_checkable
class Refuses(Protocol):
    """A channel, or a study of leakage, that does not go with every other part."""

    def refuse(self, parts: Combination) -> None:
        """Raise InputError for parts that would not mean what they say, and the ways out."""


@runtime_checkable
class Mechanism(Protocol):
    """A privacy mechanism as configured: what it goes with, and the protection that it makes.

    A choice of the group `privacy`, or a channel whose clients add noise themselves. What is
    promised (delta, a target, a limit) are arguments of its own, so that a promise which no
    mechanism takes is refused like any argument that a part does not know.
    """

    def refuse(self, parts: Combination) -> None:
        """Raise InputError for parts with which the promise would not hold, and the ways out."""

    def protect(self, plan: Plan, bare: Protection) -> Protection:
        """Calibrate the noise for what the plan releases, and open the account.

        Args:
            plan: of the run.
            bare: the run without this mechanism.

        Raises:
            InputError: the promise cannot be made, or not even one round would keep it.
        """


@final
@dataclass(frozen=True)
class Combination:
    """The parts of a run as configured, before any data: what may go together is asked of them."""

    n_clients: int  # who may take part in a round, malicious ones on top included
    cohort_size: int
    min_clients: int
    rounds: int
    setting: Setting
    sampler: Sampler
    trainer: Trainer
    algorithm: Algorithm
    worker_momentum: WorkerMomentum
    attack: Attack
    n_malicious: int
    schedule: AttackSchedule
    privacy: Mechanism
    channel: Channel
    update_validation: UpdateValidation
    detector: Detector
    pre_aggregation: Mapping[str, PreAggregator]  # by name, in order
    aggregator: Aggregator
    server_optimizer: ServerOptimizer
    studies: tuple[str, ...]  # of leakage, by name
    extra_clients: bool = False  # whether malicious clients come on top of the honest ones
    malicious_a_cohort: int | None = None  # None: as many as the sampler draws


@final
@dataclass(frozen=True)
class Plan:
    """What the run is going to release, as far as an account depends on it."""

    seed: int
    rounds: int
    sampler: Sampler
    sizes: tuple[int, ...]  # examples of each client
    d: int  # numbers in a row
    aggregator: Aggregator
    example_shape: tuple[int, ...] = ()  # of one example; (): nobody asks

    def cohort(self, round: int) -> list[int]:
        """Who will take part in a round (from 0)."""
        cohort = drawn(self.sampler, len(self.sizes), generator(self.seed, "cohort", round))
        return [int(client) for client in cohort]

    @cached_property
    def _cohort_sizes(self) -> list[int]:
        return [len(self.cohort(round)) for round in range(self.rounds)]

    def largest_cohort(self) -> int:
        """How many clients the largest round will have; at least 1."""
        return max(1, *self._cohort_sizes)

    def expected_cohort(self) -> int:
        """How many clients a round has on average; at least 1."""
        said = sampling_of(self.sampler, len(self.sizes))
        if said is not None:
            return max(1, round(said.rate * len(self.sizes)))
        return max(1, round(sum(self._cohort_sizes) / self.rounds))

    def participations(self) -> np.ndarray:
        """In how many rounds each client will take part: `[n_clients]`.

        Raises:
            InputError: the sampler draws other cohorts when it is asked again, as the run does.
        """
        counts, again = (self._counted() for _ in range(2))
        if not np.array_equal(counts, again):
            raise InputError(
                "draws another cohort from the same stream, so that it goes by earlier draws, and "
                "noise for a target is for the rounds in which a client will take part; draw by "
                "the generator that it is given alone",
                "sampler",
                called(self.sampler),
            )
        return counts

    def _counted(self) -> np.ndarray:
        counts = np.zeros(len(self.sizes), dtype=np.int64)
        for round in range(self.rounds):
            counts[self.cohort(round)] += 1
        return counts

    def most_participations(self) -> int:
        """Of any client; at least 1."""
        return max(1, int(self.participations().max()))

    def sampling(self) -> Sampling | None:
        """What an accountant may count on, held against the draws; None for nothing.

        Raises:
            InputError: the sampler draws otherwise than it says.
        """
        from scipy.stats import binom

        said = sampling_of(self.sampler, len(self.sizes))
        if said is None:
            return None
        n, counts = len(self.sizes), self.participations()
        total, draws = int(counts.sum()), n * self.rounds
        # Whoever holds what is said true draws so rarely like this that it is not believed.
        beyond = min(binom.sf(total - 1, draws, said.rate), binom.cdf(total, draws, said.rate))
        favoured = n * binom.sf(int(counts.max()) - 1, self.rounds, said.rate)
        uneven = said.kind == "fixed_size" and len(set(self._cohort_sizes)) > 1
        if beyond < NEVER or favoured < NEVER or uneven:
            raise InputError(
                f"says that it draws every client with probability {said.rate:.4g} "
                f"({said.kind}), and draws a share of {total / draws:.4g}, the most frequent "
                f"client in {int(counts.max())} of {self.rounds} rounds",
                "sampler",
                type(self.sampler).__name__,
            )
        if wrong := contradiction(self.sampler, n, said.kind, said.rate):
            raise InputError(
                f"says that it draws every client with probability {said.rate:.4g} ({said.kind}), "
                f"and {wrong}; use sampler=poisson or sampler=uniform, or one that does not say "
                "how it draws (sampling), on which nothing is counted",
                "sampler",
                type(self.sampler).__name__,
            )
        return said


@final
@dataclass(frozen=True)
class Protection:
    """What a run does for privacy, and what it may say about it."""

    trainer: Trainer
    privacy: Privacy
    channel: Channel
    account: Account
    mechanism: Mechanism  # with its noise settled: protects a changed plan with the same noise
    remarks: tuple[str, ...] = ()  # what a person should know before the run
