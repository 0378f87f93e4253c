"""Local DP: each client's own noise on its row. Every release is a whole mechanism."""

from __future__ import annotations

from dataclasses import replace

from fedexp.config.parts import Config
from fedexp.privacy.account import NOT_COVERED, OneReleaseAClient, PrivacyAccount, Promise
from fedexp.privacy.ledger import Ledger, PureLedger
from fedexp.privacy.local import LocalGaussian, LocalLaplace
from fedexp.protection.plan import Plan, Protection
from fedexp.protection.terms import NO_AMPLIFICATION, NOISE_SOURCES, ONE_CLIENT, Terms


def clients_by_gauss(
    node: Config, mechanism: LocalGaussian, protection: Protection, plan: Plan
) -> Protection:
    """One client with all its data: Gaussian noise, whose releases an accountant adds up."""
    n, terms = len(plan.sizes), Terms.of(node, len(plan.sizes), "clients")
    if terms.target_epsilon is not None:
        z = terms.least_noise([(1.0, plan.most_participations())])
        mechanism = replace(mechanism, noise_multiplier=z)
    z = mechanism.noise_per_sensitivity
    terms.check_noise(z)
    promise = Promise(
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
    account = PrivacyAccount(ledger, OneReleaseAClient(), promise, terms.max_epsilon)
    settled = replace(protection, privacy=mechanism, account=account)
    return terms.kept(settled, plan, mechanism.noise_seed)


def clients_by_laplace(
    node: Config, mechanism: LocalLaplace, protection: Protection, plan: Plan
) -> Protection:
    """One client with all its data: Laplace noise, whose pure epsilons add up."""
    terms = Terms.of({**node, "delta": None}, len(plan.sizes), "clients")
    if terms.target_epsilon is not None:
        share = terms.target_epsilon / plan.most_participations()
        mechanism = replace(mechanism, epsilon_per_release=share)
    promise = Promise(
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
    account = PrivacyAccount(ledger, OneReleaseAClient(), promise, terms.max_epsilon)
    settled = replace(protection, privacy=mechanism, account=account)
    return terms.kept(settled, plan, mechanism.noise_seed)
