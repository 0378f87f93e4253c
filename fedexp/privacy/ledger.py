"""What a run has spent: one history a client, or one for the federation.

    epsilon of the run = max over k of epsilon(history of client k)

where the history of client k has only the rounds in which it trained. The maximum, and not a sum
or a mean, because the shards are disjoint: neighbours differ in one example, which one client
holds, and what the other clients send does not depend on it. That holds while a record lies at one
client only and nobody takes part because of its data. Against the server, which sees who answers,
the sampling of clients amplifies nothing.

    examples (DP-SGD)    a row a client: z, q = 1 / batches an epoch, steps as trained
    clients, central     one row: z, q of the sampler, a step a round, an empty round included
    clients, local       a row a client: z, q = 1, a step for each round that it answered

Source: McSherry, "Privacy Integrated Queries", SIGMOD 2009, theorem 4 (parallel composition).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from fedexp.core.checks import InputError, at_least, positive
from fedexp.core.types import State
from fedexp.privacy.accounting import (
    Adjacency,
    Event,
    Guarantee,
    check_accountant,
    check_delta,
    epsilon,
    profile,
)

MOST_EXACT = 8  # kinds of rows whose privacy curve is worth a second each


def charged(state: State, steps: Mapping[int, int]) -> State:
    """The state after row k released `steps[k]` more times, for each k named.

    Raises:
        InputError: a row that is not there, or a negative number of steps.

    >>> charged({"steps": torch.tensor([0, 38])}, {1: 38})
    {'steps': tensor([ 0, 76])}
    """
    spent = state["steps"].clone()
    for row, count in steps.items():
        at_least(0, steps=count)
        if not 0 <= row < len(spent):
            raise InputError(f"the ledger has rows 0 to {len(spent) - 1}", "row", row)
        spent[row] += count
    return {"steps": spent}


@final
@dataclass(frozen=True)
class Ledger:
    """Histories of Gaussian releases, one row each, that compose in parallel.

    Args:
        noise_multipliers: [n] z of each row, in units of the sensitivity.
        sample_rates: [n] q of each row.
        delta: of the guarantee.
        accountant: "prv" or "rdp".
        adjacency: what the sensitivity was taken for; a sample rate below 1 amplifies for
            "add_remove" only.
    """

    noise_multipliers: tuple[float, ...]
    sample_rates: tuple[float, ...]
    delta: float
    accountant: str
    adjacency: Adjacency

    def __post_init__(self) -> None:
        check_delta(self.delta)
        check_accountant(self.accountant)
        if len(self.noise_multipliers) != len(self.sample_rates):
            raise InputError(
                f"one is needed for each of {len(self.sample_rates)} rows",
                "noise_multipliers",
                len(self.noise_multipliers),
            )
        for noise_multiplier, sample_rate in set(self._kinds()):
            Event(noise_multiplier, sample_rate, 0)
            if sample_rate < 1 and self.adjacency != "add_remove":
                raise InputError(
                    "below 1 it amplifies for adjacency=add_remove only", "sample_rate", sample_rate
                )

    def init(self) -> State:
        """Nothing released yet: `steps` [n] int64."""
        return {"steps": torch.zeros(len(self.sample_rates), dtype=torch.int64)}

    def charge(self, state: State, steps: Mapping[int, int]) -> State:
        """The state after a round, see `charged`."""
        return charged(state, steps)

    def _kinds(self) -> list[tuple[float, float]]:
        return list(zip(self.noise_multipliers, self.sample_rates, strict=True))

    def of_row(self, state: State, row: int) -> Guarantee:
        """What one client's history costs the members of that client."""
        event = Event(*self._kinds()[row], int(state["steps"][row]))
        return self._with_adjacency(epsilon([event], self.delta, self.accountant))

    def epsilons(self, state: State) -> Tensor:
        """Epsilon of each row: `[n]` float64. To look at; no mean or minimum of it is a guarantee.

        Costs up to 0.3 seconds for each row unlike all others; `epsilon` asks for fewer.
        """
        found = [self.of_row(state, row).epsilon for row in range(len(self.sample_rates))]
        return torch.tensor(found, dtype=torch.float64)

    def epsilon(self, state: State) -> Guarantee:
        """The guarantee of the run so far: the largest of the rows'."""
        most = epsilon([], self.delta, self.accountant)
        for event, bound in self._by_bound(state):
            # Nobody says more than rdp, so no row further down can be the largest.
            if bound <= most.epsilon:
                break
            found = epsilon([event], self.delta, self.accountant)
            if found.epsilon > most.epsilon:
                most = found
        return self._with_adjacency(most)

    def profile(
        self, state: State, deltas: Sequence[float], noise_scale: float
    ) -> tuple[float, ...]:
        """Epsilon for each of the deltas, had the noise been so many times what it was.

        The largest of the rows' for each. Beyond `MOST_EXACT` kinds of rows rdp's bound is taken.
        """
        most = (0.0,) * len(deltas)
        for k, (event, _) in enumerate(self._by_bound(state)):
            scaled = replace(event, noise_multiplier=event.noise_multiplier * noise_scale)
            bounds = profile([scaled], deltas, "rdp")
            if all(bound <= known for bound, known in zip(bounds, most, strict=True)):
                continue
            found = profile([scaled], deltas, self.accountant) if k < MOST_EXACT else bounds
            most = tuple(map(max, most, found))
        return most

    def would_exceed(self, state: State, steps: Mapping[int, int], max_epsilon: float) -> bool:
        """Whether the guarantee would be above `max_epsilon` after `steps` more by row.

        Ask before the round, with the most that each client of the cohort can train.

        Raises:
            InputError: `max_epsilon` is not a finite number above 0.
        """
        positive(max_epsilon=max_epsilon)
        after = self.charge(state, steps)
        bounds = [bound for _, bound in self._by_bound(after)]
        if not bounds or bounds[0] <= max_epsilon:
            return False
        return self.epsilon(after).epsilon > max_epsilon

    def _by_bound(self, state: State) -> list[tuple[Event, float]]:
        """One event a kind, that with the most steps, with rdp's epsilon; the largest first."""
        longest: dict[tuple[float, float], int] = {}
        for kind, count in zip(self._kinds(), state["steps"].tolist(), strict=True):
            longest[kind] = max(count, longest.get(kind, 0))
        events = [Event(*kind, count) for kind, count in longest.items() if count]
        bounds = [(event, epsilon([event], self.delta, "rdp").epsilon) for event in events]
        return sorted(bounds, key=lambda pair: -pair[1])

    def _with_adjacency(self, guarantee: Guarantee) -> Guarantee:
        return replace(guarantee, adjacency=self.adjacency)


@final
@dataclass(frozen=True)
class PureLedger:
    """Releases with a pure epsilon each (local Laplace noise), which add up row by row.

    Args:
        rows: n, how many clients.
        epsilon_per_release: of one release.
        adjacency: what the sensitivity was taken for.
    """

    rows: int
    epsilon_per_release: float
    adjacency: Adjacency

    def __post_init__(self) -> None:
        at_least(1, rows=self.rows)
        positive(epsilon_per_release=self.epsilon_per_release)

    def init(self) -> State:
        """Nothing released yet: `steps` [n] int64."""
        return {"steps": torch.zeros(self.rows, dtype=torch.int64)}

    def charge(self, state: State, steps: Mapping[int, int]) -> State:
        """The state after a round, see `charged`."""
        return charged(state, steps)

    def epsilons(self, state: State) -> Tensor:
        """Epsilon of each row: `[n]` float64."""
        return state["steps"].to(torch.float64) * self.epsilon_per_release

    def profile(
        self, state: State, deltas: Sequence[float], noise_scale: float
    ) -> tuple[float, ...]:
        """The same epsilon for every delta; so many times the noise is so much less of it."""
        return (float(self.epsilons(state).max()) / noise_scale,) * len(deltas)

    def epsilon(self, state: State) -> Guarantee:
        """The largest of the rows' sums; its delta is 0."""
        return Guarantee(float(self.epsilons(state).max()), 0.0, "sum", self.adjacency, "")

    def would_exceed(self, state: State, steps: Mapping[int, int], max_epsilon: float) -> bool:
        """Whether the guarantee would be above `max_epsilon` after `steps` more by row."""
        positive(max_epsilon=max_epsilon)
        return self.epsilon(self.charge(state, steps)).epsilon > max_epsilon
