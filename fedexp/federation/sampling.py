"""Who takes part in a round. Each sampler maps (n_clients, rng) to sorted client numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, final

import numpy as np

from fedexp.core.capabilities import SamplingKind
from fedexp.core.checks import InputError, at_least
from fedexp.core.protocols import Sampler


@final
@dataclass(frozen=True)
class Full:
    """Every client in every round.

    Args:
        cohort_size: has to be the number of clients; stated so that the config cannot say one
            thing and the run do another.
    """

    sampling: ClassVar[SamplingKind] = "fixed_size"

    cohort_size: int

    def rate(self, n_clients: int) -> float:
        """1: everybody takes part."""
        return 1.0

    def widened(self, n: int, n_all: int) -> Full:
        """For `n_all` clients in the place of `n`."""
        return Full(n_all)

    def __call__(self, n_clients: int, rng: np.random.Generator) -> np.ndarray:
        """All clients: `arange(n_clients)`."""
        if self.cohort_size != n_clients:
            raise InputError(
                f"sampler=full takes all {n_clients} clients; use sampler=uniform to draw some",
                "cohort_size",
                self.cohort_size,
            )
        return np.arange(n_clients)


@final
@dataclass(frozen=True)
class Uniform:
    """`cohort_size` clients without replacement, each cohort equally likely (FedAvg, 2017).

    >>> len(Uniform(3)(10, np.random.default_rng(0)))
    3
    """

    sampling: ClassVar[SamplingKind] = "fixed_size"

    cohort_size: int

    def __post_init__(self) -> None:
        at_least(1, cohort_size=self.cohort_size)

    def rate(self, n_clients: int) -> float:
        """cohort_size / n_clients."""
        return self.cohort_size / n_clients

    def widened(self, n: int, n_all: int) -> Uniform:
        """A cohort that is the same share of `n_all` clients as this one is of `n`."""
        return replace(self, cohort_size=_same_share(self.cohort_size, n, n_all))

    def __call__(self, n_clients: int, rng: np.random.Generator) -> np.ndarray:
        """A sorted cohort; InputError if it would be larger than the federation."""
        _no_more_than(n_clients, self.cohort_size)
        return np.sort(rng.choice(n_clients, self.cohort_size, replace=False))


@final
@dataclass(frozen=True)
class Poisson:
    """Every client by itself with probability cohort_size / n_clients; a cohort may be empty.

    This, not `Uniform`, is the sampling that privacy accountants mean by "Poisson subsampling".

    Args:
        cohort_size: the expected size of a cohort.
    """

    sampling: ClassVar[SamplingKind] = "poisson"

    cohort_size: int

    def __post_init__(self) -> None:
        at_least(1, cohort_size=self.cohort_size)

    def rate(self, n_clients: int) -> float:
        """cohort_size / n_clients."""
        return self.cohort_size / n_clients

    def widened(self, n: int, n_all: int) -> Poisson:
        """A cohort that is the same share of `n_all` clients as this one is of `n`."""
        return replace(self, cohort_size=_same_share(self.cohort_size, n, n_all))

    def __call__(self, n_clients: int, rng: np.random.Generator) -> np.ndarray:
        """A sorted cohort of random size, possibly empty."""
        _no_more_than(n_clients, self.cohort_size)
        return np.flatnonzero(rng.random(n_clients) < self.cohort_size / n_clients)


@final
@dataclass(frozen=True)
class AllBut:
    """Whoever the sampler draws, without one client. It says nothing of how it draws.

    Args:
        left_out: the client.
        sampler: who else takes part.
    """

    left_out: int
    sampler: Sampler

    def __post_init__(self) -> None:
        at_least(0, left_out=self.left_out)

    def around(self, sampler: Sampler) -> AllBut:
        """The same client left out of what another sampler draws."""
        return replace(self, sampler=sampler)

    def __call__(self, n_clients: int, rng: np.random.Generator) -> np.ndarray:
        """Sorted client numbers; none where only that client was drawn."""
        if not self.left_out < n_clients:
            raise InputError(f"there are {n_clients} clients, from 0", "left_out", self.left_out)
        drawn = self.sampler(n_clients, rng)
        return np.asarray(drawn[drawn != self.left_out])


@final
@dataclass(frozen=True)
class WithMalicious:
    """A cohort of the sampler's size in which exactly so many clients are malicious.

    Surplus ones are exchanged for honest clients, and missing ones take honest clients' places, at
    random. It says nothing of how it draws: no account counts on it.

    Args:
        sampler: says how many take part.
        malicious: `[n_clients]` bool.
        number: of malicious clients in a cohort.
    """

    sampler: Sampler
    malicious: np.ndarray
    number: int

    def __call__(self, n_clients: int, rng: np.random.Generator) -> np.ndarray:
        """Sorted client numbers.

        Raises:
            InputError: a cohort with so many malicious clients, or so few, cannot be made.
        """
        drawn = self.sampler(n_clients, rng)
        honest = len(drawn) - self.number
        if honest < 0:
            reason = f"a cohort has {len(drawn)} clients"
            raise InputError(reason, "schedule.clients_a_round", self.number)
        for kind, needed in ((True, self.number), (False, honest)):
            if needed > (there := int(np.sum(self.malicious == kind))):
                name = "malicious" if kind else "honest"
                raise InputError(
                    f"a cohort of {len(drawn)} would need {needed} {name} clients, and there are "
                    f"{there}",
                    "schedule.clients_a_round",
                    self.number,
                )
        kinds = ((True, self.number), (False, honest))
        taken = [self._taken(drawn, kind, needed, rng) for kind, needed in kinds]
        return np.sort(np.concatenate(taken))

    def _taken(
        self, drawn: np.ndarray, kind: bool, needed: int, rng: np.random.Generator
    ) -> np.ndarray:
        """So many clients of a kind: of those drawn first, then of the others."""
        everybody = np.flatnonzero(self.malicious == kind)
        there = rng.permutation(np.intersect1d(everybody, drawn))
        others = rng.permutation(np.setdiff1d(everybody, drawn))
        return np.concatenate([there, others])[:needed]


def _same_share(cohort_size: int, n: int, n_all: int) -> int:
    return max(1, round(cohort_size * n_all / n))


def _no_more_than(n_clients: int, cohort_size: int) -> None:
    if cohort_size > n_clients:
        raise InputError(
            f"a cohort cannot be larger than the federation (n_clients={n_clients})",
            "cohort_size",
            cohort_size,
        )
