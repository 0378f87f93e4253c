"""What canaries' scores are like with any share of the claimed noise, before there are any.

    steps   whoever sees every step: sums of log-likelihood ratios of the claimed noise, of a
            canary that joins each of T batches with the rate q
    rows    whoever sees the sum of the steps alone: how often it joined, in noise of z sqrt(T)
    apart   one release of Gaussian noise whose worlds lie as far apart as (epsilon, delta) says

Real scores are as good as the first, and worse than the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, final

import numpy as np

from fedexp.core.rng import generator
from fedexp.core.types import State
from fedexp.federation.rounds import Experiment
from fedexp.privacy.analytic_gaussian import noise_multiplier_for

MANY = 50  # steps whose sum is taken to be normal
NODES = 4001  # of the integrals over the noise
PURE_DELTA = 1e-6  # in the place of a delta of 0, which no Gaussian has


class Sight(Protocol):
    """Makes up scores."""

    def __call__(self, inside: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
        """Scores `[m]` of canaries that are in where `inside` `[m]` is true, of so much noise."""


def log_ratio(x: np.ndarray, q: float, z: float) -> np.ndarray:
    """How much likelier a step's x is with a canary of rate q than without one: log, elementwise.

    x is N(0, z^2) in a step that the canary is not in, N(1, z^2) in one that it is in.

    >>> log_ratio(np.array([0.5, 1.5]), 1.0, 1.0).tolist()
    [0.0, 1.0]
    """
    with np.errstate(divide="ignore"):  # at q = 1 there is no step without it
        return np.asarray(np.logaddexp(np.log1p(-q), np.log(q) + (x - 1 / 2) / z**2))


@final
@dataclass(frozen=True)
class Schedule:
    """How often canaries are drawn, and in how much noise.

    Args:
        rates: [m] q, the probability that a canary joins a step.
        steps: [m] int64, how many its client makes in all rounds.
        noise_multiplier: z that is claimed, in units of what a canary moves a sum.
    """

    rates: np.ndarray
    steps: np.ndarray
    noise_multiplier: float

    @classmethod
    def of(
        cls, exp: Experiment, owners: np.ndarray, spends: Sequence[tuple[float, int]], z: float
    ) -> Schedule:
        """Of canaries of `owners` `[m]`; a client `spends` (q, steps) in each of its rounds."""
        n = len(spends)
        turns = np.zeros(n, dtype=np.int64)
        for round in range(exp.rounds):
            turns[exp.sampler(n, generator(exp.seed, "cohort", round))] += 1
        rates, steps = (np.array(of_client) for of_client in zip(*spends, strict=True))
        return cls(rates[owners], (steps * turns)[owners], z)

    def joined(self, inside: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """In how many steps each canary is: `[m]` int64."""
        return np.where(inside, rng.binomial(self.steps, self.rates), 0)


@final
@dataclass(frozen=True)
class OfSteps:
    """Scores of whoever sees every step."""

    schedule: Schedule

    def __call__(self, inside: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
        """Sums of log-likelihood ratios."""
        scores, joined = np.zeros(len(inside)), self.schedule.joined(inside, rng)
        rates, steps = self.schedule.rates, self.schedule.steps
        for q in np.unique(rates):
            mine = rates == q
            without = steps[mine] - joined[mine]
            scores[mine] += self._sums(joined[mine], 1.0, q, share, rng)
            scores[mine] += self._sums(without, 0.0, q, share, rng)
        return scores

    def _sums(
        self, counts: np.ndarray, at: float, q: float, share: float, rng: np.random.Generator
    ) -> np.ndarray:
        """Sums `[k]` of so many steps' scores each."""
        z = self.schedule.noise_multiplier
        if counts.max() <= MANY:
            x = at + share * z * rng.standard_normal(int(counts.sum()))
            whose = np.repeat(np.arange(len(counts)), counts)
            return np.bincount(whose, log_ratio(x, q, z), len(counts))
        noise = np.linspace(-8, 8, NODES)
        weights, values = np.exp(-(noise**2) / 2), log_ratio(at + share * z * noise, q, z)
        mean = np.average(values, weights=weights)
        deviation = math.sqrt(np.average((values - mean) ** 2, weights=weights))
        normal = rng.standard_normal(len(counts))
        return np.asarray(counts * mean + np.sqrt(counts) * deviation * normal)


@final
@dataclass(frozen=True)
class OfRows:
    """Scores of whoever sees the sum of the steps, without anybody else in it."""

    schedule: Schedule

    def __call__(self, inside: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
        """How often a canary joined, in the noise of all steps."""
        noise = share * self.schedule.noise_multiplier * np.sqrt(self.schedule.steps)
        return np.asarray(
            self.schedule.joined(inside, rng) + noise * rng.standard_normal(len(inside))
        )


@final
@dataclass(frozen=True)
class Apart:
    """Scores of one Gaussian release that claims as much as a whole run does."""

    experiment: Experiment

    @cached_property
    def separation(self) -> float:
        """In deviations of the claimed noise."""
        account = self.experiment.account
        spent = spent_as_planned(self.experiment)
        epsilon, statement = account.epsilon(spent), account.statement(spent)
        assert epsilon is not None  # `settled` has refused what claims nothing
        assert statement is not None
        return 1 / noise_multiplier_for(epsilon, float(str(statement["delta"])) or PURE_DELTA)

    def __call__(self, inside: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
        """Normal scores, so far apart."""
        return self.separation / share * inside + rng.standard_normal(len(inside))


def spent_as_planned(exp: Experiment) -> State:
    """The ledger that `exp` will have at its end if all of every cohort take part."""
    account = exp.account
    state = account.init()
    for round in range(exp.rounds):
        cohort = exp.sampler(exp.n_clients, generator(exp.seed, "cohort", round)).tolist()
        if account.would_exceed(state, cohort):
            break
        state = account.at_most(state, cohort)
    return state
