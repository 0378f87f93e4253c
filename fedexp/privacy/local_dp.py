"""Local DP as a user asks for it: with what it goes, its noise, and its claim.

What it does to rows is `fedexp.privacy.local`. Nothing is amplified by sampling: the server sees
who answers, and each client's releases add up over the rounds in which it did.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, final

from fedexp.core.capabilities import communicates
from fedexp.core.checks import InputError
from fedexp.core.protection import Combination, Plan, Protection
from fedexp.core.text import called
from fedexp.privacy.account import NOT_COVERED, Description, OneReleaseAClient, PrivacyAccount
from fedexp.privacy.calibration import LEAST_NOISE
from fedexp.privacy.ledger import Ledger, PureLedger
from fedexp.privacy.local import Adjacency, LocalGaussian, LocalLaplace
from fedexp.privacy.noise import NoiseSeed
from fedexp.privacy.terms import (
    NO_AMPLIFICATION,
    NOISE_SOURCES,
    NOT_CLIPPED_TOGETHER,
    NOTHING_SHARED,
    ONE_CLIENT,
    Target,
    Terms,
    check_limits,
    check_noise_is_given_once,
    refuse_no_noise,
    refuse_what_is_sent,
)


@final
@dataclass(frozen=True)
class LocalGaussianDP:
    """Gaussian noise on every client's row, whose releases an accountant adds up.

    Args:
        clip_norm: see `LocalGaussian`, as for the next five; the noise may be left to
            `target_epsilon`.
        noise_multiplier: z.
        epsilon_per_release: of one release.
        delta_per_release: of one release.
        adjacency: "replace_one" or "add_remove".
        noise_seed: "task" or "os".
        delta: of the guarantee, below one over the number of clients.
        accountant: "prv" or "rdp".
        target_epsilon: of the whole run; infinity: no noise.
        max_epsilon: the run ends before the round that would exceed it.
        allow_no_noise: whether noise of 0 is meant.
    """

    noised_before_seen: ClassVar[bool] = True

    clip_norm: float
    noise_multiplier: float | None
    epsilon_per_release: float | None
    delta_per_release: float | None
    adjacency: Adjacency
    noise_seed: NoiseSeed
    delta: float
    accountant: str
    target_epsilon: Target
    max_epsilon: float | None
    allow_no_noise: bool

    def __post_init__(self) -> None:
        check_limits(self.target_epsilon, self.max_epsilon)
        check_noise_is_given_once(
            self.target_epsilon,
            noise_multiplier=self.noise_multiplier,
            epsilon_per_release=self.epsilon_per_release,
            delta_per_release=self.delta_per_release,
        )
        self._runtime(None if self.target_epsilon is None else LEAST_NOISE)

    def refuse(self, parts: Combination) -> None:
        """Needs rows that travel."""
        if not communicates(parts.setting):
            raise InputError(NOTHING_SHARED, "privacy", called(self))
        refuse_what_is_sent(parts, lambda sent: sent.clipped_with_the_delta, NOT_CLIPPED_TOGETHER)

    def protect(self, plan: Plan, bare: Protection) -> Protection:
        """Noise in every row, a row of the ledger a client."""
        n = len(plan.sizes)
        terms = Terms.of(
            n,
            "clients",
            delta=self.delta,
            accountant=self.accountant,
            target_epsilon=self.target_epsilon,
            max_epsilon=self.max_epsilon,
            allow_no_noise=self.allow_no_noise,
        )
        calibrated = None
        if terms.target_epsilon is not None:
            calibrated = terms.least_noise([(1.0, plan.most_participations())])
        mechanism = self._runtime(calibrated)
        z = mechanism.noise_per_sensitivity
        terms.check_noise(z)
        description = Description(
            mechanism="local DP: every client clips its update and adds Gaussian noise",
            unit=ONE_CLIENT,
            noise={
                "clip_norm": mechanism.clip_norm,
                "noise_multiplier": z,
                "noise_std": mechanism.noise_std,
            },
            noise_added_by="each client, to its own update",
            noise_source=NOISE_SOURCES[mechanism.noise_seed],
            sampling=NO_AMPLIFICATION,
            not_covered=NOT_COVERED,
        )
        ledger = Ledger((z,) * n, (1.0,) * n, terms.delta, terms.accountant, mechanism.adjacency)
        account = PrivacyAccount(ledger, OneReleaseAClient(), description, terms.max_epsilon)
        settled = replace(
            self,
            noise_multiplier=mechanism.noise_multiplier,
            epsilon_per_release=mechanism.epsilon_per_release,
            delta_per_release=mechanism.delta_per_release,
            target_epsilon=None,
        )
        protected = replace(bare, privacy=mechanism, account=account, mechanism=settled)
        return terms.kept(protected, plan, mechanism.noise_seed)

    def for_members(self, n: int, n_all: int) -> LocalGaussianDP:
        """The same noise with `n_all` clients in the place of `n`: for audits."""
        return self

    def _runtime(self, calibrated: float | None) -> LocalGaussian:
        return LocalGaussian(
            clip_norm=self.clip_norm,
            noise_multiplier=self.noise_multiplier if calibrated is None else calibrated,
            epsilon_per_release=self.epsilon_per_release,
            delta_per_release=self.delta_per_release,
            adjacency=self.adjacency,
            noise_seed=self.noise_seed,
        )


@final
@dataclass(frozen=True)
class LocalLaplaceDP:
    """Laplace noise on every client's row, whose pure epsilons add up.

    Args:
        clip_norm_l1: see `LocalLaplace`, as for the next three; the noise may be left to
            `target_epsilon`.
        epsilon_per_release: of one release.
        adjacency: "replace_one" or "add_remove".
        noise_seed: "task" or "os".
        target_epsilon: of the whole run; `epsilon_per_release` is then a client's share of it.
        max_epsilon: the run ends before the round that would exceed it.
    """

    noised_before_seen: ClassVar[bool] = True

    refused_arguments: ClassVar[Mapping[str, str]] = {
        "clip_norm": "Laplace noise needs an L1 clip: behind an L2 clip it costs up to sqrt(d) "
        "times the epsilon; use clip_norm_l1, or privacy=local_gaussian"
    }

    clip_norm_l1: float
    epsilon_per_release: float | None
    adjacency: Adjacency
    noise_seed: NoiseSeed
    target_epsilon: Target
    max_epsilon: float | None

    def __post_init__(self) -> None:
        check_limits(self.target_epsilon, self.max_epsilon)
        refuse_no_noise(
            self.target_epsilon,
            "privacy=local_gaussian (which clips in L2) with privacy.allow_no_noise=true",
        )
        check_noise_is_given_once(self.target_epsilon, epsilon_per_release=self.epsilon_per_release)
        self._runtime(LEAST_NOISE if self.epsilon_per_release is None else self.epsilon_per_release)

    def refuse(self, parts: Combination) -> None:
        """Needs rows that travel."""
        if not communicates(parts.setting):
            raise InputError(NOTHING_SHARED, "privacy", called(self))
        refuse_what_is_sent(parts, lambda sent: sent.clipped_with_the_delta, NOT_CLIPPED_TOGETHER)

    def protect(self, plan: Plan, bare: Protection) -> Protection:
        """Noise in every row, a row of the ledger a client."""
        terms = Terms.of(
            len(plan.sizes),
            "clients",
            delta=None,
            target_epsilon=self.target_epsilon,
            max_epsilon=self.max_epsilon,
        )
        share = self.epsilon_per_release
        if share is None:
            assert terms.target_epsilon is not None
            share = terms.target_epsilon / plan.most_participations()
        mechanism = self._runtime(share)
        description = Description(
            mechanism="local DP: every client clips its update in L1 and adds Laplace noise",
            unit=ONE_CLIENT,
            noise={
                "clip_norm_l1": mechanism.clip_norm_l1,
                "epsilon_per_release": mechanism.epsilon_per_release,
                "noise_scale": mechanism.noise_scale,
            },
            noise_added_by="each client, to its own update",
            noise_source=NOISE_SOURCES[mechanism.noise_seed],
            sampling=NO_AMPLIFICATION,
            not_covered=NOT_COVERED,
        )
        ledger = PureLedger(len(plan.sizes), mechanism.epsilon_per_release, mechanism.adjacency)
        account = PrivacyAccount(ledger, OneReleaseAClient(), description, terms.max_epsilon)
        settled = replace(self, epsilon_per_release=share, target_epsilon=None)
        protected = replace(bare, privacy=mechanism, account=account, mechanism=settled)
        return terms.kept(protected, plan, mechanism.noise_seed)

    def for_members(self, n: int, n_all: int) -> LocalLaplaceDP:
        """The same noise with `n_all` clients in the place of `n`: for audits."""
        return self

    def _runtime(self, epsilon_per_release: float) -> LocalLaplace:
        return LocalLaplace(
            clip_norm_l1=self.clip_norm_l1,
            epsilon_per_release=epsilon_per_release,
            adjacency=self.adjacency,
            noise_seed=self.noise_seed,
        )
