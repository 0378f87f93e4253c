"""The account of a run: what a round costs, charged to the ledger, and the promise in words.

    examples (DP-SGD)          each client that trained: its steps
    clients, noise in the sum  with amplification by sampling: one release a round, empty or not
                               without: one release for each client whose row was in it
    clients, noise in the row  one release for each client whose row was sent

A round is charged for what its clients trained and sent, whether or not the server could use it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, final

import torch

from fedexp.core.capabilities import profile_of
from fedexp.core.checks import at_least, positive
from fedexp.core.protocols import Account
from fedexp.core.types import Delivery, State, Updates
from fedexp.privacy.accounting import Adjacency, Guarantee
from fedexp.privacy.ledger import charged

NOT_COVERED = (
    "measured figures (losses, accuracies) and what is chosen by them: the best round, the "
    "hyper-parameters",
    "how many examples each client has, and the mean and deviation that pixels or features are "
    "scaled with; of a table also its medians, and which words its columns hold",
)
SEEDED = "the run's seed: whoever knows it can take the noise away"
OPERATING_SYSTEM = "the operating system: the run cannot be repeated or resumed bit for bit"


class Ledger(Protocol):
    """Histories of releases, one row a client or one for all."""

    def init(self) -> State:
        """Nothing released yet."""

    def charge(self, state: State, steps: Mapping[int, int]) -> State:
        """The state after `steps` more releases by row."""

    def epsilon(self, state: State) -> Guarantee:
        """The guarantee so far: the largest of the rows'."""

    def would_exceed(self, state: State, steps: Mapping[int, int], max_epsilon: float) -> bool:
        """Whether `steps` more by row would take epsilon above the limit."""


class Charges(Protocol):
    """How many releases a round is, by row of the ledger."""

    def at_most(self, cohort: Sequence[int]) -> Mapping[int, int]:
        """Before the round, if the whole cohort takes part."""

    def of(self, sent: Updates, delivery: Delivery) -> Mapping[int, int]:
        """After it."""


@final
@dataclass(frozen=True)
class StepsOfEachClient:
    """DP-SGD: every client that trained, with the steps that it reports.

    Args:
        steps: [n_clients] of a round in which it trains.
    """

    steps: tuple[int, ...]

    def at_most(self, cohort: Sequence[int]) -> Mapping[int, int]:
        """The steps planned."""
        return {client: self.steps[client] for client in cohort}

    def of(self, sent: Updates, delivery: Delivery) -> Mapping[int, int]:
        """The steps made."""
        reports = zip(sent.client_ids, sent.metrics, strict=True)
        return {client: int(metrics["steps"]) for client, metrics in reports}


@final
@dataclass(frozen=True)
class OneReleaseAClient:
    """Every client whose row reached the server, by itself or in a sum."""

    def at_most(self, cohort: Sequence[int]) -> Mapping[int, int]:
        """The whole cohort."""
        return dict.fromkeys(cohort, 1)

    def of(self, sent: Updates, delivery: Delivery) -> Mapping[int, int]:
        """Who is in a row that arrived."""
        return dict.fromkeys((c for members in delivery.members for c in members), 1)


@final
@dataclass(frozen=True)
class OneReleaseARound:
    """One for all clients, whoever was drawn."""

    def at_most(self, cohort: Sequence[int]) -> Mapping[int, int]:
        """One."""
        return {0: 1}

    def of(self, sent: Updates, delivery: Delivery) -> Mapping[int, int]:
        """One, also for a round without clients."""
        return {0: 1}


@final
@dataclass(frozen=True)
class CountingLedger:
    """Releases that are all alike: epsilon depends on nothing but their number.

    Args:
        rows: how many histories there are.
        epsilon_of: epsilon of so many releases, 1 or more.
        delta: of the guarantee.
        accountant: who says so.
        adjacency: for which neighbours.
    """

    rows: int
    epsilon_of: Callable[[int], float]
    delta: float
    accountant: str
    adjacency: Adjacency

    def __post_init__(self) -> None:
        at_least(1, rows=self.rows)

    def init(self) -> State:
        """Nothing released yet: `steps` [n] int64."""
        return {"steps": torch.zeros(self.rows, dtype=torch.int64)}

    def charge(self, state: State, steps: Mapping[int, int]) -> State:
        """The state after a round."""
        return charged(state, steps)

    def epsilon(self, state: State) -> Guarantee:
        """The guarantee of the row with the most releases."""
        most = int(state["steps"].max())
        value = self.epsilon_of(most) if most else 0.0
        return Guarantee(value, self.delta, self.accountant, self.adjacency, "")

    def would_exceed(self, state: State, steps: Mapping[int, int], max_epsilon: float) -> bool:
        """Whether `steps` more by row would take epsilon above the limit."""
        return self.epsilon(self.charge(state, steps)).epsilon > max_epsilon


@final
@dataclass(frozen=True)
class Description:
    """What a mechanism promises, in words and numbers for the record."""

    mechanism: str
    unit: str  # what neighbours differ in
    noise: Mapping[str, float]  # clip norm, noise multiplier and the like
    noise_added_by: str
    noise_source: str
    sampling: str  # what amplifies
    not_covered: tuple[str, ...]


@final
@dataclass(frozen=True)
class PrivacyAccount:
    """A ledger, what a round costs, and where it ends.

    Args:
        ledger: keeps the histories.
        charges: how many releases a round is.
        description: what the ledger's epsilon is about.
        max_epsilon: no round may take epsilon above it; None for no limit.
    """

    ledger: Ledger
    charges: Charges
    description: Description
    max_epsilon: float | None

    def __post_init__(self) -> None:
        if self.max_epsilon is not None:
            positive(max_epsilon=self.max_epsilon)

    def init(self) -> State:
        """Nothing spent."""
        return self.ledger.init()

    def charge(self, state: State, sent: Updates, delivery: Delivery) -> State:
        """The ledger after a round."""
        return self.ledger.charge(state, self.charges.of(sent, delivery))

    def at_most(self, state: State, cohort: Sequence[int]) -> State:
        """The ledger after a round in which the whole cohort takes part."""
        return self.ledger.charge(state, self.charges.at_most(cohort))

    def would_exceed(self, state: State, cohort: Sequence[int]) -> bool:
        """Whether a round with this cohort could take epsilon above `max_epsilon`."""
        if self.max_epsilon is None:
            return False
        return self.ledger.would_exceed(state, self.charges.at_most(cohort), self.max_epsilon)

    def epsilon(self, state: State) -> float:
        """The run's epsilon so far."""
        return self.ledger.epsilon(state).epsilon

    def profile(
        self, state: State, deltas: Sequence[float], noise_scale: float
    ) -> tuple[float, ...] | None:
        """Epsilon for each of the deltas, if the ledger knows: see `StatesItsProfile`."""
        return profile_of(self.ledger, state, deltas, noise_scale)

    def statement(self, state: State) -> Mapping[str, object]:
        """The promise in full."""
        guarantee = self.ledger.epsilon(state)
        finite = math.isfinite(guarantee.epsilon)
        return {
            "mechanism": self.description.mechanism,
            "unit": self.description.unit,
            "adjacency": guarantee.adjacency,
            "epsilon": guarantee.epsilon if finite else None,
            "delta": guarantee.delta,
            "accountant": guarantee.accountant,
            "note": guarantee.note if finite else "nothing is promised: epsilon is infinite",
            "sampling": self.description.sampling,
            **self.description.noise,
            "noise_added_by": self.description.noise_added_by,
            "noise_source": self.description.noise_source,
            "max_epsilon": self.max_epsilon,
            "not_covered": list(self.description.not_covered),
        }


@final
@dataclass(frozen=True)
class NotFromTheStart:
    """An account of a run that leaves something out, such as what its model started from.

    Args:
        account: of the run.
        not_covered: further sentences for its statement.
    """

    account: Account
    not_covered: tuple[str, ...]

    @property
    def max_epsilon(self) -> float | None:
        """The account's."""
        return self.account.max_epsilon

    def init(self) -> State:
        """Nothing spent."""
        return self.account.init()

    def charge(self, state: State, sent: Updates, delivery: Delivery) -> State:
        """The ledger after a round."""
        return self.account.charge(state, sent, delivery)

    def at_most(self, state: State, cohort: Sequence[int]) -> State:
        """The ledger after a round in which the whole cohort takes part."""
        return self.account.at_most(state, cohort)

    def would_exceed(self, state: State, cohort: Sequence[int]) -> bool:
        """Whether a round with this cohort could take epsilon above `max_epsilon`."""
        return self.account.would_exceed(state, cohort)

    def epsilon(self, state: State) -> float | None:
        """What this run alone has spent."""
        return self.account.epsilon(state)

    def profile(
        self, state: State, deltas: Sequence[float], noise_scale: float
    ) -> tuple[float, ...] | None:
        """That of the account, if it knows."""
        return profile_of(self.account, state, deltas, noise_scale)

    def statement(self, state: State) -> Mapping[str, object] | None:
        """The promise in full, with what it does not cover besides."""
        said = self.account.statement(state)
        if said is None:
            return None
        known = said.get("not_covered")
        covered = list(known) if isinstance(known, Sequence) else []
        return {**said, "not_covered": [*covered, *self.not_covered]}


@final
@dataclass(frozen=True)
class NoAccount:
    """Of a run that promises nothing."""

    max_epsilon: ClassVar[None] = None

    def init(self) -> State:
        """No ledger."""
        return {}

    def charge(self, state: State, sent: Updates, delivery: Delivery) -> State:
        """Nothing is spent."""
        return state

    def at_most(self, state: State, cohort: Sequence[int]) -> State:
        """Nothing is spent."""
        return state

    def would_exceed(self, state: State, cohort: Sequence[int]) -> bool:
        """Never."""
        return False

    def epsilon(self, state: State) -> None:
        """Nothing is promised."""

    def statement(self, state: State) -> None:
        """There is no promise."""
