"""Local DP: every client clips and noises its own row, and need not trust the server.

    Gaussian:  clip_C(delta_k) + N(0, (z S)^2 I),      L2 clip,   (epsilon, delta) a release
    Laplace:   clip_C(delta_k) + Laplace(S / eps)^d,   L1 clip,   pure epsilon a release

with S the sensitivity, the largest distance (in the norm of the clip) between two rows that must
look alike. `replace_one`: any two rows that a client could have, S = 2 C, as local DP is defined;
`add_remove`: any row and zeros, S = C. The configs choose the first: whoever answers is seen to
answer, and what is left to hide is which row it had. An epsilon of one is not one of the other.

Each release is one full mechanism: nothing is gained from sampling, and the releases of a client
add up over the rounds that it answered. The Laplace scale belongs to an L1 clip: behind an L2 clip
to C it gives sqrt(d) epsilon and no less, hence the name `clip_norm_l1`, and no other order.

A row without a length (NaN) is sent as noise alone: a row that is not finite would tell, without
noise, that training diverged. Nor is the number of a client's examples sent. The server gets rows
that are long with noise, and has no bound to hold an attacker to.

Sources: Kasiviswanathan, Lee, Nissim, Raskhodnikova and Smith, "What Can We Learn Privately?", FOCS
2008 (local DP); Balle and Wang, ICML 2018 (Gaussian, see `analytic_gaussian`); Dwork, McSherry,
Nissim and Smith, "Calibrating Noise to Sensitivity in Private Data Analysis", TCC 2006 (Laplace).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, final

import numpy as np
import torch
from torch import Tensor

from fedexp.core.checks import InputError, non_negative, one_of, positive
from fedexp.core.stateless import Stateless
from fedexp.core.types import State, Updates
from fedexp.privacy.analytic_gaussian import noise_multiplier_for
from fedexp.privacy.clipping import clip_rows
from fedexp.privacy.noise import NOISE_SEEDS, NoiseSeed, add_noise, gaussian, noise_streams

Adjacency = Literal["replace_one", "add_remove"]
DIAMETERS: dict[Adjacency, int] = {"replace_one": 2, "add_remove": 1}  # sensitivity / clip norm


class ServerAddsNothing(Stateless):
    """The server's side of a mechanism that is complete when a client has sent its row."""

    releases_every_round: ClassVar[bool] = False

    def on_receipt(self, updates: Updates, state: State) -> Updates:
        """The rows as they came, with equal weights."""
        return _equally_weighted(updates, updates.matrix)

    def on_step(
        self, step: Tensor, updates: Updates, state: State, rng: np.random.Generator
    ) -> tuple[Tensor, State]:
        """The step `[d]` unchanged; draws nothing."""
        return step, state


@final
@dataclass(frozen=True)
class LocalGaussian(ServerAddsNothing):
    """Rows clipped in L2, with Gaussian noise: `[n, d]` to `[n, d]`.

    Args:
        clip_norm: C, the largest L2 norm of an update before noise.
        noise_multiplier: z, standard deviation of the noise in units of the sensitivity (not of C,
            so that an accountant needs no adjacency); None takes the least that the next two
            allow.
        epsilon_per_release: of one release; None where `noise_multiplier` is given.
        delta_per_release: of one release; None where `noise_multiplier` is given.
        adjacency: "replace_one" (S = 2 C) or "add_remove" (S = C).
        noise_seed: "task" or "os", see `fedexp.privacy.noise`.
    """

    row_order: ClassVar[Literal[1, 2]] = 2

    clip_norm: float
    noise_multiplier: float | None
    epsilon_per_release: float | None
    delta_per_release: float | None
    adjacency: Adjacency
    noise_seed: NoiseSeed

    def __post_init__(self) -> None:
        positive(clip_norm=self.clip_norm)
        one_of(DIAMETERS, adjacency=self.adjacency)
        one_of(NOISE_SEEDS, noise_seed=self.noise_seed)
        self._noise_multiplier()

    @property
    def sensitivity(self) -> float:
        """S: the largest L2 distance between two rows before noise."""
        return DIAMETERS[self.adjacency] * self.clip_norm

    @property
    def noise_per_sensitivity(self) -> float:
        """z: what an accountant of the Gaussian mechanism asks for, whatever the adjacency."""
        return self._noise_multiplier()

    def _noise_multiplier(self) -> float:
        """z, from the one of its two sources that is given."""
        given, epsilon, delta = (
            self.noise_multiplier,
            self.epsilon_per_release,
            self.delta_per_release,
        )
        if given is None:
            if epsilon is None or delta is None:
                raise InputError(
                    "the noise is not given; set noise_multiplier, or both epsilon_per_release and "
                    "delta_per_release, or target_epsilon for the whole run",
                    "noise_multiplier",
                    "null",
                )
            positive(epsilon_per_release=epsilon, delta_per_release=delta)
            if delta >= 1:
                raise InputError("must be below 1", "delta_per_release", delta)
            return noise_multiplier_for(epsilon, delta)
        non_negative(noise_multiplier=given)
        if epsilon is not None or delta is not None:
            raise InputError(
                "the noise is given twice; use noise_multiplier alone, or epsilon_per_release and "
                "delta_per_release with noise_multiplier=null",
                "noise_multiplier",
                given,
            )
        return given

    @property
    def noise_std(self) -> float:
        """Standard deviation of the noise on each coordinate, in the units of an update."""
        return self.noise_per_sensitivity * self.sensitivity

    @property
    def row_bound(self) -> float:
        """The largest norm of a row before noise: for audits."""
        return self.clip_norm

    def with_noise(self, scale: float) -> LocalGaussian:
        """The noise multiplied, which no account is told: for audits."""
        z = scale * self.noise_per_sensitivity
        return replace(self, noise_multiplier=z, epsilon_per_release=None, delta_per_release=None)

    def for_members(self, n: int, n_all: int) -> LocalGaussian:
        """The same: a row's noise does not depend on how many there are."""
        return self

    def on_client(self, updates: Updates, state: State, rng: np.random.Generator) -> Updates:
        """Every row as its client releases it; equal weights."""
        clipped = clip_rows(updates.matrix, self.clip_norm)
        streams = noise_streams(self.noise_seed, rng)
        draws = (gaussian(streams("client", client)) for client in updates.client_ids)
        return _with_noise(updates, clipped, self.noise_std, draws)


@final
@dataclass(frozen=True)
class LocalLaplace(ServerAddsNothing):
    """Rows clipped in L1, with Laplace noise: `[n, d]` to `[n, d]`.

    Args:
        clip_norm_l1: C, the largest L1 norm of an update before noise.
        epsilon_per_release: of one release; its delta is 0.
        adjacency: "replace_one" (S = 2 C) or "add_remove" (S = C).
        noise_seed: "task" or "os", see `fedexp.privacy.noise`.
    """

    row_order: ClassVar[Literal[1, 2]] = 1

    clip_norm_l1: float
    epsilon_per_release: float
    adjacency: Adjacency
    noise_seed: NoiseSeed

    def __post_init__(self) -> None:
        positive(clip_norm_l1=self.clip_norm_l1, epsilon_per_release=self.epsilon_per_release)
        one_of(DIAMETERS, adjacency=self.adjacency)
        one_of(NOISE_SEEDS, noise_seed=self.noise_seed)

    @property
    def sensitivity(self) -> float:
        """S: the largest L1 distance between two rows before noise."""
        return DIAMETERS[self.adjacency] * self.clip_norm_l1

    @property
    def noise_scale(self) -> float:
        """S / epsilon_per_release: mean absolute noise on a coordinate; sqrt(2) of it deviation."""
        return self.sensitivity / self.epsilon_per_release

    @property
    def row_bound(self) -> float:
        """The largest norm of a row before noise: for audits."""
        return self.clip_norm_l1

    def with_noise(self, scale: float) -> LocalLaplace:
        """The noise multiplied, which no account is told: for audits."""
        return replace(self, epsilon_per_release=self.epsilon_per_release / scale)

    def for_members(self, n: int, n_all: int) -> LocalLaplace:
        """The same: a row's noise does not depend on how many there are."""
        return self

    def on_client(self, updates: Updates, state: State, rng: np.random.Generator) -> Updates:
        """Every row as its client releases it; equal weights."""
        clipped = clip_rows(updates.matrix, self.clip_norm_l1, order=1)
        streams = noise_streams(self.noise_seed, rng)
        draws = (_laplace(streams("client", client)) for client in updates.client_ids)
        return _with_noise(updates, clipped, self.noise_scale, draws)


def _laplace(rng: np.random.Generator) -> Callable[[int], np.ndarray]:
    return lambda d: rng.laplace(size=d)


def _with_noise(
    updates: Updates,
    clipped: Tensor,
    scale: float,
    draws: Iterable[Callable[[int], np.ndarray]],
) -> Updates:
    """Each clipped row with noise from its own client's draws."""
    noised = clipped.clone()
    for row, draw in zip(noised, draws, strict=True):
        add_noise(row, scale, draw)
    return _equally_weighted(updates, noised)


def _equally_weighted(updates: Updates, matrix: Tensor) -> Updates:
    return replace(updates, matrix=matrix, num_examples=torch.ones_like(updates.num_examples))
