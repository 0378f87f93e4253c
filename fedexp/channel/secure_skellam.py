"""Distributed DP: secure aggregation of updates in which every client put a share of the noise.

Each sum that the server sees holds enough of the clients' shares to keep the promise, whoever of
them dropped out as far as the threshold allows. The noise is `fedexp.channel.skellam`'s, the sums
are `fedexp.channel.secure_aggregation`'s; here is what is promised by the two together.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, final

from fedexp.channel.secure_aggregation import SecureAggregation
from fedexp.channel.skellam import Skellam
from fedexp.core.capabilities import does_nothing
from fedexp.core.checks import InputError
from fedexp.core.inherited import refuse_inherited
from fedexp.core.protection import Combination, Plan, Protection
from fedexp.core.text import called
from fedexp.privacy.account import (
    NOT_COVERED,
    CountingLedger,
    Description,
    OneReleaseAClient,
    PrivacyAccount,
)
from fedexp.privacy.terms import (
    NO_AMPLIFICATION,
    NOISE_SOURCES,
    NOT_CLIPPED_TOGETHER,
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
class SecureSkellam(SecureAggregation):
    """Secure aggregation with Skellam noise: the server sees noisy sums, and nothing else.

    Args:
        encoder: the noise; without a `noise_multiplier` it is the least for `target_epsilon`.
        groups: see `SecureAggregation`, as for all up to `record_views`.
        delta: of the guarantee, below one over the number of clients.
        target_epsilon: of the whole run.
        max_epsilon: the run ends before the round that would exceed it.
    """

    hides_rows: ClassVar[bool] = True  # of its own transport as well

    encoder: Skellam
    delta: float
    target_epsilon: Target
    max_epsilon: float | None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weighting != "uniform":
            raise InputError(
                "with Skellam noise every client weighs the same: its share of the sum is bounded "
                "by clip_norm only with weighting=uniform",
                "weighting",
                self.weighting,
            )
        check_limits(self.target_epsilon, self.max_epsilon)
        refuse_no_noise(self.target_epsilon, "channel=secure_aggregation")
        try:
            check_noise_is_given_once(
                self.target_epsilon, noise_multiplier=self.encoder.noise_multiplier
            )
        except InputError as refusal:
            raise refusal.under("encoder") from None

    def refuse(self, parts: Combination) -> None:
        """One account a run, and every number that is sent under it."""
        refuse_what_is_sent(parts, lambda sent: sent.clipped_with_the_delta, NOT_CLIPPED_TOGETHER)
        if not does_nothing(parts.privacy):
            raise InputError(
                "channel=secure_skellam is a mechanism of its own, and a run keeps one account; "
                "use privacy=none, or channel=secure_aggregation",
                "privacy",
                called(parts.privacy),
            )

    def protect(self, plan: Plan, bare: Protection) -> Protection:
        """Noise shares for sums over which no client has more than its clipped row."""
        refuse_inherited("encoder", self.encoder, "epsilon")  # it adds the noise
        n = len(plan.sizes)
        terms = Terms.of(
            n,
            "clients",
            delta=self.delta,
            target_epsilon=self.target_epsilon,
            max_epsilon=self.max_epsilon,
        )
        encoder = self.encoder
        if terms.target_epsilon is not None:
            releases = plan.most_participations()
            z = terms.least_noise_by(
                lambda z: replace(self.encoder, noise_multiplier=z).epsilon(
                    plan.d, releases, terms.delta
                ),
                f" ({releases} releases of {plan.d} numbers)",
            )
            encoder = replace(encoder, noise_multiplier=z)
        channel = replace(self, encoder=encoder, target_epsilon=None)
        channel.check(plan.largest_cohort(), plan.d)  # the ring has to hold this noise now
        description = Description(
            mechanism="distributed DP: secure aggregation with Skellam noise",
            unit=ONE_CLIENT,
            noise={
                "clip_norm": encoder.clip_norm,
                "noise_multiplier": encoder.multiplier,
                "scale": encoder.scale,
            },
            noise_added_by="the clients together, enough of it if no more drop out than are "
            "allowed to",
            noise_source=NOISE_SOURCES["task"],
            sampling=NO_AMPLIFICATION,
            not_covered=NOT_COVERED,
        )
        ledger = CountingLedger(
            n,
            lambda releases: encoder.epsilon(plan.d, releases, terms.delta),
            terms.delta,
            "rdp",
            "zero_out",
        )
        account = PrivacyAccount(ledger, OneReleaseAClient(), description, terms.max_epsilon)
        return terms.kept(replace(bare, channel=channel, account=account), plan, "task")
