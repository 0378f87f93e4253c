"""Distributed DP: each sum that the server sees holds enough of the clients' shares of noise."""

from __future__ import annotations

from dataclasses import replace

from fedexp.channel.secure_aggregation import SecureAggregation
from fedexp.channel.skellam import Skellam
from fedexp.config.parts import Config
from fedexp.privacy.account import (
    NOT_COVERED,
    CountingLedger,
    OneReleaseAClient,
    PrivacyAccount,
    Promise,
)
from fedexp.protection.plan import Plan, Protection
from fedexp.protection.terms import NO_AMPLIFICATION, NOISE_SOURCES, ONE_CLIENT, Terms


def clients_by_skellam(
    node: Config, channel: SecureAggregation, protection: Protection, plan: Plan
) -> Protection:
    """One client with all its data: Skellam noise behind secure aggregation."""
    encoder = channel.encoder
    assert isinstance(encoder, Skellam)
    terms = Terms.of(node, len(plan.sizes), "clients")
    if terms.target_epsilon is not None:
        releases, template = plan.most_participations(), encoder
        z = terms.least_noise_by(
            lambda z: replace(template, noise_multiplier=z).epsilon(plan.d, releases, terms.delta),
            f" ({releases} releases of {plan.d} numbers)",
        )
        encoder = replace(encoder, noise_multiplier=z)
        channel = replace(channel, encoder=encoder)
        channel.check(plan.largest_cohort(), plan.d)  # the ring has to hold this noise now
    promise = Promise(
        mechanism="distributed DP: secure aggregation with Skellam noise",
        unit=ONE_CLIENT,
        noise={
            "clip_norm": encoder.clip_norm,
            "noise_multiplier": encoder.noise_multiplier,
            "scale": encoder.scale,
        },
        noise_added_by="the clients together, enough of it if no more drop out than are allowed to",
        noise_source=NOISE_SOURCES["task"],
        sampling=NO_AMPLIFICATION,
        not_covered=NOT_COVERED,
    )
    ledger = CountingLedger(
        len(plan.sizes),
        lambda releases: encoder.epsilon(plan.d, releases, terms.delta),
        terms.delta,
        "rdp",
        "add_remove",
    )
    account = PrivacyAccount(ledger, OneReleaseAClient(), promise, terms.max_epsilon)
    settled = replace(protection, channel=channel, account=account)
    return terms.kept(settled, plan, "task")
