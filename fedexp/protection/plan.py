"""What a run is going to release, and what is done about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from fedexp.core.protocols import Account, Channel, Privacy, Sampler, Trainer
from fedexp.core.rng import generator


@final
@dataclass(frozen=True)
class Plan:
    """What the run is going to release, as far as an account depends on it."""

    seed: int
    rounds: int
    sampler: Sampler
    cohort_size: int
    sizes: tuple[int, ...]  # examples of each client
    d: int

    def cohort(self, round: int) -> list[int]:
        """Who will take part in a round (from 0)."""
        cohort = self.sampler(len(self.sizes), generator(self.seed, "cohort", round))
        return [int(client) for client in cohort]

    def largest_cohort(self) -> int:
        """How many clients the largest round will have; at least `cohort_size`."""
        return max(self.cohort_size, *(len(self.cohort(round)) for round in range(self.rounds)))

    def participations(self) -> np.ndarray:
        """In how many rounds each client will take part: `[n_clients]`."""
        counts = np.zeros(len(self.sizes), dtype=np.int64)
        for round in range(self.rounds):
            counts[self.cohort(round)] += 1
        return counts

    def most_participations(self) -> int:
        """Of any client; at least 1."""
        return max(1, int(self.participations().max()))


@final
@dataclass(frozen=True)
class Protection:
    """What a run does for privacy, and what it may say about it."""

    trainer: Trainer
    privacy: Privacy
    channel: Channel
    account: Account
    remarks: tuple[str, ...]  # what a person should know before the run
