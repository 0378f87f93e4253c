"""Client-level central DP: the server's noise on the sum.

One history for all clients where their sampling is counted on, else one for each.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from fedexp.config.parts import Config
from fedexp.core.checks import one_of
from fedexp.privacy.account import (
    NOT_COVERED,
    CountingLedger,
    OneReleaseAClient,
    OneReleaseARound,
    Price,
    PrivacyAccount,
    Promise,
)
from fedexp.privacy.account import Ledger as AnyLedger
from fedexp.privacy.client_level import ClientLevel
from fedexp.privacy.fixed_size import fixed_size_epsilon
from fedexp.privacy.ledger import Ledger
from fedexp.protection.plan import Plan, Protection
from fedexp.protection.terms import NO_AMPLIFICATION, NOISE_SOURCES, ONE_CLIENT, Terms

SAMPLINGS = ("poisson", "fixed_size", "none")
AGAINST_OTHERS = "counted on against all but the server, which sees who takes part"


def clients_in_the_sum(
    node: Config, mechanism: ClientLevel, protection: Protection, plan: Plan
) -> Protection:
    """One client with all its data: noise on the sum of the clipped updates."""
    n, terms = len(plan.sizes), Terms.of(node, len(plan.sizes), "clients")
    one_of(SAMPLINGS, sampling=node["sampling"])
    sampling, q = node["sampling"], plan.cohort_size / n

    def fixed_size(noise_multiplier: float, rounds: int) -> float:
        sizes = (n, plan.cohort_size, rounds)
        return float(fixed_size_epsilon(noise_multiplier, *sizes, terms.delta).epsilon)

    if terms.target_epsilon is not None:
        if sampling == "fixed_size":
            about = f" ({plan.cohort_size} of {n} clients in each of {plan.rounds} rounds)"
            z = terms.least_noise_by(lambda z: fixed_size(z, plan.rounds), about)
        elif sampling == "poisson":
            z = terms.least_noise([(q, plan.rounds)])
        else:
            z = terms.least_noise([(1.0, plan.most_participations())])
        mechanism = replace(mechanism, noise_multiplier=z)
    z = mechanism.noise_multiplier
    terms.check_noise(z)

    price: Price = OneReleaseARound()
    ledger: AnyLedger
    if sampling == "fixed_size":
        fixed_size(z, plan.rounds)  # what it needs may be missing: better now than in a round
        ledger = CountingLedger(1, partial(fixed_size, z), terms.delta, "rdp", "replace_one")
        drawn = f"{plan.cohort_size} of {n} clients a round, without replacement; {AGAINST_OTHERS}"
    elif sampling == "poisson":
        ledger = Ledger((z,), (q,), terms.delta, terms.accountant, "add_remove")
        drawn = f"every client by itself with probability {q:.4g}; {AGAINST_OTHERS}"
    else:
        price, drawn = OneReleaseAClient(), NO_AMPLIFICATION
        ledger = Ledger((z,) * n, (1.0,) * n, terms.delta, terms.accountant, "add_remove")
    promise = Promise(
        mechanism="client-level DP: clipped updates, noise on their sum",
        unit=ONE_CLIENT,
        noise={
            "first_clip_norm" if mechanism.adaptive else "clip_norm": mechanism.clip_norm,
            "noise_multiplier": z,
            "expected_cohort": mechanism.expected_cohort,
        },
        noise_added_by="the server, which sees every update and must be trusted",
        noise_source=NOISE_SOURCES[mechanism.noise_seed],
        sampling=drawn,
        not_covered=NOT_COVERED,
    )
    account = PrivacyAccount(ledger, price, promise, terms.max_epsilon)
    settled = replace(protection, privacy=mechanism, account=account)
    return terms.kept(settled, plan, mechanism.noise_seed)
