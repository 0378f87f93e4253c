"""Client-level central DP: no client moves a step by more than a bound, and noise hides who did.

    step = (sum_k clip_C(delta_k) + N(0, (z C)^2 I)) / m

with C the `clip_norm`, z the `noise_multiplier` and m the `expected_cohort`, fixed and public,
however many clients answer: a cohort without clients is a step of noise alone. Adding or removing
one client, with all its data and whatever it sends, moves the sum by at most C. That needs equal
weights: with ten clients of weights 1000, 1, ..., 1 one of them moves the mean by 0.99 C instead of
0.1 C.

With `adaptive` C follows the quantile gamma of the norms. b_k = 1 if client k was not clipped:

    b = (sum_k (b_k - 1/2) + N(0, sigma_b^2)) / m + 1/2,   C <- C exp(-eta (b - gamma))

with b_k = 1/2 for a row of zeros, so that it adds nothing here either: between a client with zeros
for an update and one that was clipped lies 1/2, as between one that is away and one that is there.
The count has that sensitivity and is paid for out of z: the sum is noised with z_delta instead,
where z^-2 = z_delta^-2 + (2 sigma_b)^-2, and an accountant counts z once. The server finds b_k in
the clipped row itself, which ends on the sphere of radius C if it was clipped: there is no second
message in which a client could lie. Flower 1.41 has the sign of the update of C inverted.

Sources: McMahan, Ramage, Talwar and Zhang, "Learning Differentially Private Recurrent Language
Models", ICLR 2018, algorithm 1 with the fixed-denominator estimator and equal weights; Andrew,
Thakkar, McMahan and Ramaswamy, "Differentially Private Learning with Adaptive Clipping",
NeurIPS 2021, algorithm 1 and theorem 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, final

import numpy as np
import torch
from torch import Tensor

from fedexp.core.checks import InputError, at_least, in_range, non_negative, one_of, positive
from fedexp.core.types import State, Updates
from fedexp.privacy.clipping import clip_rows, row_norms, within
from fedexp.privacy.noise import NOISE_SEEDS, NoiseSeed, add_noise, gaussian, noise_streams


@final
@dataclass(frozen=True)
class ClientLevel:
    """Clipped updates, equal weights, Gaussian noise on their sum, a fixed divisor.

    Args:
        sensitivity: of the rule's total for a clip norm, what z is in units of; the mean's is the
            clip norm itself.
        clip_norm: C, the largest L2 norm of an update; with `adaptive` that of the first round.
        noise_multiplier: z, standard deviation of the noise on the sum, in units of the
            sensitivity; 0 only clips, and keeps no secret.
        expected_cohort: m, how many clients a round has in expectation.
        adaptive: whether C follows a quantile of the norms.
        target_quantile: gamma, the share of the clients that should not be clipped.
        clip_learning_rate: eta; the log of C moves by eta times (share unclipped - gamma) a round.
        count_noise: sigma_b, standard deviation of the noise on the count of unclipped clients;
            None takes m / 20.
        noise_seed: "task" or "os", see `fedexp.privacy.noise`.
    """

    releases_every_round: ClassVar[bool] = True
    row_order: ClassVar[Literal[1, 2]] = 2

    sensitivity: Callable[[float], float]
    clip_norm: float
    noise_multiplier: float
    expected_cohort: int
    adaptive: bool
    target_quantile: float
    clip_learning_rate: float
    count_noise: float | None
    noise_seed: NoiseSeed

    def __post_init__(self) -> None:
        positive(clip_norm=self.clip_norm, clip_learning_rate=self.clip_learning_rate)
        non_negative(noise_multiplier=self.noise_multiplier)
        at_least(1, expected_cohort=self.expected_cohort)
        in_range(0, 1, target_quantile=self.target_quantile)
        if self.count_noise is not None:
            non_negative(count_noise=self.count_noise)
        one_of(NOISE_SEEDS, noise_seed=self.noise_seed)
        if self.adaptive:
            update_noise_multiplier(self.noise_multiplier, self._count_noise)

    @property
    def _count_noise(self) -> float:
        return self.expected_cohort / 20 if self.count_noise is None else self.count_noise

    @property
    def row_bound(self) -> float:
        """The largest norm of a row: for audits."""
        return self.clip_norm

    def with_noise(self, scale: float) -> ClientLevel:
        """The noise multiplied, which no account is told: for audits."""
        return replace(self, noise_multiplier=scale * self.noise_multiplier)

    def for_members(self, n: int, n_all: int) -> ClientLevel:
        """The same noise on a sum of `n_all` clients in the place of `n`: for audits."""
        return replace(self, expected_cohort=max(1, round(self.expected_cohort * n_all / n)))

    def init(self, d: int) -> State:
        """The first clip norm, float64 without dimensions."""
        return {"clip_norm": torch.tensor(self.clip_norm, dtype=torch.float64)}

    def on_client(self, updates: Updates, state: State, rng: np.random.Generator) -> Updates:
        """Every row clipped; draws nothing."""
        return updates.with_matrix(clip_rows(updates.matrix, float(state["clip_norm"])))

    def on_receipt(self, updates: Updates, state: State) -> Updates:
        """Every row clipped, since a malicious client need not have done it; equal weights."""
        matrix = clip_rows(updates.matrix, float(state["clip_norm"]))
        return replace(updates, matrix=matrix, num_examples=torch.ones_like(updates.num_examples))

    def on_step(
        self, step: Tensor, updates: Updates, state: State, rng: np.random.Generator
    ) -> tuple[Tensor, State]:
        """The released step `[d]` and the next clip norm.

        Args:
            step: the plain mean of the rows of `updates`; zeros if there are none.
            updates: what `on_receipt` made of the rows that were averaged.
            state: holds the clip norm of this round.
            rng: the stream of this round.
        """
        clip_norm, m = float(state["clip_norm"]), self.expected_cohort
        streams = noise_streams(self.noise_seed, rng)
        z = self.noise_multiplier
        if self.adaptive:
            z = update_noise_multiplier(z, self._count_noise)
            state = self._adapted(updates, clip_norm, streams("count"))
        released = step * (len(updates) / m)
        add_noise(released, z * self.sensitivity(clip_norm) / m, gaussian(streams("sum")))
        return released, state

    def _adapted(self, updates: Updates, clip_norm: float, rng: np.random.Generator) -> State:
        there = row_norms(updates.matrix) > 0
        unclipped = float(within(updates.matrix, clip_norm)[there].sum()) - float(there.sum()) / 2
        noise = self._count_noise * rng.standard_normal()
        share = (unclipped + noise) / self.expected_cohort + 1 / 2
        factor = math.exp(-self.clip_learning_rate * (share - self.target_quantile))
        return {"clip_norm": torch.tensor(clip_norm * factor, dtype=torch.float64)}


def update_noise_multiplier(noise_multiplier: float, count_noise: float) -> float:
    """z_delta, what is left for the updates of z after the count is paid for.

    Raises:
        InputError: the count alone, at 2 sigma_b, would cost all of z.

    >>> round(update_noise_multiplier(1.0, count_noise=5.0), 6)
    1.005038
    """
    if noise_multiplier == 0:
        return 0.0
    if noise_multiplier >= 2 * count_noise:
        raise InputError(
            "leaves nothing for the updates: with adaptive=true it must be below "
            f"2 x count_noise = {2 * count_noise:g}; raise count_noise (null: expected_cohort / "
            "20) or the cohort",
            "noise_multiplier",
            noise_multiplier,
        )
    # z (1 - (z / 2 sigma_b)^2)^(-1/2) is the paper's formula without squares that overflow.
    return noise_multiplier / math.sqrt(1 - (noise_multiplier / (2 * count_noise)) ** 2)
