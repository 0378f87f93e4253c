"""Client-level DP as a user asks for it: with what it goes, its noise, and its claim.

What it does to rows and steps is `fedexp.privacy.client_level`. The claim counts on the sampling of
clients only as far as the sampler that runs says so of itself, and draws so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import final

from fedexp.core.capabilities import (
    Sampling,
    a_client_a_row,
    communicates,
    does_nothing,
    sampling_of,
    sensitivity_of,
)
from fedexp.core.checks import InputError, non_negative, one_of
from fedexp.core.protection import Combination, Plan, Protection
from fedexp.core.protocols import Aggregator
from fedexp.core.text import called
from fedexp.privacy.account import (
    NOT_COVERED,
    Charges,
    CountingLedger,
    Description,
    OneReleaseAClient,
    OneReleaseARound,
    PrivacyAccount,
)
from fedexp.privacy.account import Ledger as AnyLedger
from fedexp.privacy.calibration import LEAST_NOISE
from fedexp.privacy.client_level import ClientLevel
from fedexp.privacy.fixed_size import fixed_size_epsilon
from fedexp.privacy.ledger import Ledger
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
    refuse_what_is_sent,
)
from fedexp.privacy.tried_bound import TRIED_NUMBERS, refuse_false_bound

SAMPLINGS = ("auto", "poisson", "fixed_size", "none")
AGAINST_OTHERS = "counted on against all but the server, which sees who takes part"


@final
@dataclass(frozen=True)
class ClientDP:
    """Client-level DP as configured: what `ClientLevel` does, and what is promised by it.

    One history for all clients where their sampling is counted on, else one for each.

    Args:
        clip_norm: see `ClientLevel`, as for the next seven.
        noise_multiplier: z; None takes the least for `target_epsilon`.
        expected_cohort: m; None takes what the sampler expects.
        adaptive: whether C follows a quantile of the norms.
        target_quantile: gamma.
        clip_learning_rate: eta.
        count_noise: sigma_b.
        noise_seed: "task" or "os".
        sampling: what is counted on: "poisson" or "fixed_size", which the sampler has to say of
            itself; "none"; or "auto", Poisson where the sampler says so, else none.
        delta: of the guarantee, below one over the number of clients.
        accountant: "prv" or "rdp"; with "fixed_size" it is rdp.
        target_epsilon: of the whole run; infinity: no noise.
        max_epsilon: the run ends before the round that would exceed it.
        allow_no_noise: whether noise of 0 is meant.
    """

    clip_norm: float
    noise_multiplier: float | None
    expected_cohort: int | None
    adaptive: bool
    target_quantile: float
    clip_learning_rate: float
    count_noise: float | None
    noise_seed: NoiseSeed
    sampling: str
    delta: float
    accountant: str
    target_epsilon: Target
    max_epsilon: float | None
    allow_no_noise: bool

    def __post_init__(self) -> None:
        check_limits(self.target_epsilon, self.max_epsilon)
        check_noise_is_given_once(self.target_epsilon, noise_multiplier=self.noise_multiplier)
        one_of(SAMPLINGS, sampling=self.sampling)
        if self.noise_multiplier is not None:
            non_negative(noise_multiplier=self.noise_multiplier)
        # The other arguments are checked by who uses them, here with hardly any noise.
        self._runtime(LEAST_NOISE, self.expected_cohort or 1, lambda clip_norm: clip_norm)

    def refuse(self, parts: Combination) -> None:
        """One client may move the released sum by what the rule bounds, and by no more."""
        if not communicates(parts.setting):
            raise InputError(NOTHING_SHARED, "privacy", called(self))
        if parts.channel.sums:
            raise InputError(
                "the server has to clip every update, and this channel hands on sums over clients; "
                "use channel=secure_skellam with privacy=none (the clients clip and add the "
                "noise), or channel=plain",
                "privacy",
                called(self),
            )
        if not a_client_a_row(parts.channel):
            raise InputError(
                "does not say that every row is of one client alone (a_client_a_row), and the "
                "server clips rows: one client could move more than one; use channel=plain, or "
                "noise in the clients: privacy=local_gaussian or dp_sgd",
                "channel",
                called(parts.channel),
            )
        refuse_what_is_sent(parts, lambda sent: sent.clipped_with_the_delta, NOT_CLIPPED_TOGETHER)
        if sensitivity_of(parts.aggregator, self.clip_norm, parts.cohort_size) is None:
            raise InputError(
                "no bound is known for how far one client moves what this rule makes of the rows "
                "(it declares no sensitivity); use aggregator=mean, or noise in the clients: "
                "privacy=local_gaussian or dp_sgd",
                "aggregator",
                called(parts.aggregator),
            )
        other = "one client could change what becomes of the others, which no noise is there for"
        if not does_nothing(parts.detector):
            raise InputError(
                f"{other}; use detector=none, or noise in the clients: privacy=local_gaussian or "
                "dp_sgd",
                "detector",
                called(parts.detector),
            )
        if parts.pre_aggregation:
            raise InputError(
                f"{other}; use pre_aggregation=none (client_dp clips by itself), or noise in the "
                "clients: privacy=local_gaussian or dp_sgd",
                "pre_aggregation",
                ",".join(parts.pre_aggregation),
            )
        if parts.min_clients > 1:
            raise InputError(
                "whether a round is skipped would tell how many clients it had; a round of "
                "client_dp releases noise even without clients: use min_clients=1",
                "min_clients",
                parts.min_clients,
            )
        said = sampling_of(parts.sampler, parts.n_clients)
        kind = None if said is None else said.kind
        if self.sampling in ("poisson", "fixed_size") and kind != self.sampling:
            raise InputError(
                f"this is not how sampler={type(parts.sampler).__name__.lower()} says that it "
                "draws clients; use sampler=poisson with privacy.sampling=poisson, sampler=uniform "
                "with privacy.sampling=fixed_size, or privacy.sampling=none, which counts on no "
                "amplification",
                "privacy.sampling",
                self.sampling,
            )

    def protect(self, plan: Plan, bare: Protection) -> Protection:
        """Noise on the sum of the clipped updates, at the rate of the sampler that runs."""
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
        m = self.expected_cohort or plan.expected_cohort()
        counted_on = self._counted_on(plan)
        z, charges, ledger, drawn = self._accounted(plan, terms, counted_on)
        terms.check_noise(z)
        mechanism = self._runtime(z, m, self._sensitivity(plan))
        description = Description(
            mechanism="client-level DP: clipped updates, noise on their sum",
            unit=ONE_CLIENT,
            noise={
                "first_clip_norm" if self.adaptive else "clip_norm": self.clip_norm,
                "noise_multiplier": z,
                "expected_cohort": m,
            },
            noise_added_by="the server, which sees every update and must be trusted",
            noise_source=NOISE_SOURCES[self.noise_seed],
            sampling=drawn,
            not_covered=NOT_COVERED,
        )
        account = PrivacyAccount(ledger, charges, description, terms.max_epsilon)
        settled = replace(
            self,
            noise_multiplier=z,
            target_epsilon=None,
            expected_cohort=m,
            sampling="none" if counted_on is None else counted_on.kind,
        )
        protected = replace(bare, privacy=mechanism, account=account, mechanism=settled)
        return terms.kept(protected, plan, self.noise_seed)

    def for_members(self, n: int, n_all: int) -> ClientDP:
        """The same noise on a sum of `n_all` clients in the place of `n`: for audits."""
        assert self.expected_cohort is not None
        return replace(self, expected_cohort=max(1, round(self.expected_cohort * n_all / n)))

    @property
    def counts_on_sampling(self) -> bool:
        """Whether the claim is one against who does not see the cohorts."""
        return self.sampling != "none"

    def _runtime(self, z: float, m: int, sensitivity: Callable[[float], float]) -> ClientLevel:
        return ClientLevel(
            sensitivity=sensitivity,
            clip_norm=self.clip_norm,
            noise_multiplier=z,
            expected_cohort=m,
            adaptive=self.adaptive,
            target_quantile=self.target_quantile,
            clip_learning_rate=self.clip_learning_rate,
            count_noise=self.count_noise,
            noise_seed=self.noise_seed,
        )

    def _sensitivity(self, plan: Plan) -> Callable[[float], float]:
        """Of the rule's total in the cohort where one client moves it furthest."""
        said = sampling_of(plan.sampler, len(plan.sizes))
        poisson = said is not None and said.kind == "poisson"  # whose cohorts may be of everybody
        rule, largest = plan.aggregator, len(plan.sizes) if poisson else plan.largest_cohort()
        refuse_false_bound(
            rule,
            self.clip_norm,
            lambda n: sensitivity_of(rule, self.clip_norm, n) or 0.0,
            min(plan.d, TRIED_NUMBERS),
            largest,
            len(plan.sizes),
        )
        return _LargestMove(rule, largest)

    def _counted_on(self, plan: Plan) -> Sampling | None:
        """What amplifies: never more than the sampler that runs says and does."""
        if self.sampling == "none":
            return None
        said = plan.sampling()
        if self.sampling == "auto":
            return said if said is not None and said.kind == "poisson" else None
        return said

    def _accounted(
        self, plan: Plan, terms: Terms, counted_on: Sampling | None
    ) -> tuple[float, Charges, AnyLedger, str]:
        """(z, what a round is charged, the ledger, what amplifies in words)."""
        n, delta, z = len(plan.sizes), terms.delta, self.noise_multiplier
        if counted_on is None:
            if z is None:
                z = terms.least_noise([(1.0, plan.most_participations())])
            each = Ledger((z,) * n, (1.0,) * n, delta, terms.accountant, "zero_out")
            return z, OneReleaseAClient(), each, NO_AMPLIFICATION
        if counted_on.kind == "poisson":
            q = counted_on.rate
            if z is None:
                z = terms.least_noise([(q, plan.rounds)])
            one = Ledger((z,), (q,), delta, terms.accountant, "add_remove")
            drawn = f"every client by itself with probability {q:.4g}; {AGAINST_OTHERS}"
            return z, OneReleaseARound(), one, drawn
        cohort = round(counted_on.rate * n)

        def spent(z: float, rounds: int) -> float:
            return float(fixed_size_epsilon(z, n, cohort, rounds, delta).epsilon)

        if z is None:
            about = f" ({cohort} of {n} clients in each of {plan.rounds} rounds)"
            z = terms.least_noise_by(lambda z: spent(z, plan.rounds), about)
        spent(z, plan.rounds)  # what it needs may be missing: better now than in a round
        counting = CountingLedger(1, partial(spent, z), delta, "rdp", "replace_one")
        drawn = f"{cohort} of {n} clients a round, without replacement; {AGAINST_OTHERS}"
        return z, OneReleaseARound(), counting, drawn


@final
@dataclass(frozen=True)
class _LargestMove:
    """The bound of a rule in the cohort, of so many clients at most, where it is largest."""

    rule: Aggregator
    largest: int

    def __call__(self, clip_norm: float) -> float:
        sizes = range(1, self.largest + 1)
        bounds = [sensitivity_of(self.rule, clip_norm, n) for n in sizes]
        known = [bound for bound in bounds if bound is not None]
        if len(known) < len(bounds):
            raise InputError("declares no sensitivity", "aggregator", called(self.rule))
        return max(known)
