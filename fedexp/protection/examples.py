"""DP-SGD: each client's steps on its own examples. Epsilon is the largest client's."""

from __future__ import annotations

from dataclasses import replace

from fedexp.config.parts import Config
from fedexp.core.protocols import Channel
from fedexp.privacy.account import NOT_COVERED, PrivacyAccount, Promise, StepsOfEachClient
from fedexp.privacy.dp_sgd import PrivateTraining
from fedexp.privacy.ledger import Ledger
from fedexp.privacy.none import NoPrivacy
from fedexp.protection.plan import Plan, Protection
from fedexp.protection.terms import NOISE_SOURCES, ONE_EXAMPLE, Terms


def examples(node: Config, private: PrivateTraining, channel: Channel, plan: Plan) -> Protection:
    """One example of one client: noise in every step, a row of the ledger a client."""
    terms = Terms.of(node, sum(plan.sizes), "examples of all clients together")
    rates, steps = zip(*(private.spends(n) for n in plan.sizes), strict=True)
    if terms.target_epsilon is not None:
        counts = plan.participations().tolist()
        z = terms.least_noise((q, s * c) for q, s, c in zip(rates, steps, counts, strict=True))
        private = replace(private, steps=replace(private.steps, noise_multiplier=z))
    z, source = private.steps.noise_multiplier, private.steps.noise_seed
    terms.check_noise(z)
    ledger = Ledger((z,) * len(rates), rates, terms.delta, terms.accountant, "add_remove")
    promise = Promise(
        mechanism="DP-SGD in every client",
        unit=ONE_EXAMPLE,
        noise={"clip_norm": private.steps.clip_norm, "noise_multiplier": z},
        noise_added_by="each client, to each of its steps",
        noise_source=NOISE_SOURCES[source],
        sampling=f"Poisson batches at rates {min(rates):.4g} to {max(rates):.4g} by client",
        not_covered=NOT_COVERED,
    )
    account = PrivacyAccount(ledger, StepsOfEachClient(steps), promise, terms.max_epsilon)
    return terms.kept(Protection(private, NoPrivacy(), channel, account, ()), plan, source)
