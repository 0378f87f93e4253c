"""How often a round has more malicious clients than the server's rule counts on.

    without replacement:  M ~ Hypergeometric(n_clients, n_malicious, cohort)
    each by itself:       M ~ Binomial(n_malicious, rate);          told: P(M > assumed_malicious)
    as many as asked for (`attack.schedule.clients_a_round`):  M is that number

A rule that withstands f of a cohort's rows promises nothing for a round with more, and a draw has
more than its share now and then: of 100 clients, 25 malicious, cohorts of 10 have above 3 in 22 %
of rounds.
"""

from __future__ import annotations

from typing import Any

from fedexp.config.parts import Config
from fedexp.config.root_keys import everybody
from fedexp.config.schema import cohort_share
from fedexp.core.capabilities import does_nothing, sampling_of
from fedexp.core.protection import Combination

KEY = "assumed_malicious"


def share_of_rounds_above(parts: Combination) -> float | None:
    """P(M > assumed_malicious); None where nothing counts on it, or the sampler does not say."""
    assumed = assumed_by(parts)
    sampling = sampling_of(parts.sampler, parts.n_clients)
    if assumed is None or does_nothing(parts.attack):
        return None
    if parts.n_malicious and parts.malicious_a_cohort is not None:
        return float(parts.malicious_a_cohort > assumed)
    if sampling is None:
        return None
    if sampling.rate == 1:  # everybody, every time: nothing is drawn, and no library is imported
        return float(parts.n_malicious > assumed)
    from scipy.stats import binom, hypergeom

    if sampling.kind == "poisson":
        return float(binom.sf(assumed, parts.n_malicious, sampling.rate))
    cohort = round(sampling.rate * parts.n_clients)
    return float(hypergeom.sf(assumed, parts.n_clients, parts.n_malicious, cohort))


def assumed_by(parts: Combination) -> int | None:
    """The least number of liars that the rule, or what mixes before it, counts on."""
    counted = [
        part.assumed_malicious
        for part in (parts.aggregator, *parts.pre_aggregation.values())
        if hasattr(part, "assumed_malicious")
    ]
    return min(counted, default=None)


def remark(parts: Combination) -> tuple[str, ...]:
    """A sentence about it, where it can happen in this run."""
    share, attacked = share_of_rounds_above(parts), parts.schedule.rounds(parts.rounds)
    if not share or not attacked:
        return ()
    often = "every round" if share > 1 - 1e-9 else f"{100 * share:.3g} % of rounds"
    return (
        f"more clients than assumed_malicious={assumed_by(parts)} will be malicious in {often} "
        f"({share * attacked:.2g} of {attacked} expected): nothing is promised of the rule there",
    )


def remark_on_none(config: Config) -> tuple[str, ...]:
    """A sentence about a number that somebody has set, and that no part of the run takes."""
    assumed = config["assumed_malicious"]
    malicious, cohort_size = config["attack"]["n_malicious"], config["cohort_size"]
    nobody_set_it = assumed == cohort_share(malicious, cohort_size, everybody(config))
    if nobody_set_it or _take_it([node for key, node in config.items() if key != KEY]):
        return ()
    return (
        f"{KEY}={assumed} has no effect: no part of this run has a key of that name (unless a "
        "part of your own takes the number under another)",
    )


def _take_it(node: Any) -> bool:
    if isinstance(node, dict):
        return KEY in node or any(map(_take_it, node.values()))
    return isinstance(node, list) and any(map(_take_it, node))
