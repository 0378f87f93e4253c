"""What a federation is compared with: the same work under other terms.

Each role is a config made of the run's own: same data, same partition, same seed, and so the same
initial weights, the same work, and the same patients asked about.

    alone          every site trains on its own data, nothing is shared
    pooled         one place holds everybody's data
    fine-tuned     the federation's model, trained on at home for some rounds
    without S      the federation, in which site S never takes part
    RULE, attacked some sites flip their updates, and the server aggregates by RULE
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from fedexp.run_folder.format import backend_of_studies

Config = Mapping[str, Any]

FEDERATED, ALONE, POOLED, FINE_TUNED = "federated", "alone", "pooled", "fine-tuned"
HONEST = {
    "_target_": "fedexp.attacks.none.NoAttack",
    "fraction": 0.0,
    "n_malicious": 0,
    "first_round": 0,
}
# What has no place where nothing is shared, or would ask for others' updates.
BY_ITSELF: dict[str, dict[str, Any]] = {
    "algorithm": {"_target_": "fedexp.federation.algorithms.fedavg.FedAvg"},
    "worker_momentum": {"_target_": "fedexp.federation.worker_momentum.NoMomentum"},
    "attack": HONEST,
    "privacy": {"_target_": "fedexp.privacy.none.NoPrivacy"},
    "channel": {"_target_": "fedexp.channel.plain.Plain"},
    "detector": {"_target_": "fedexp.detection.none.NoDetector"},
    "pre_aggregation": {},
    "server_optimizer": {"_target_": "fedexp.aggregation.server_optimizers.SGD", "lr": 1.0},
}
SETTINGS = "fedexp.federation.settings."


@final
@dataclass(frozen=True)
class Role:
    """A comparison: its name, and the config that is trained for it."""

    name: str
    config: Config
    left_out: int | None = None  # the site that never takes part
    rule: str = ""  # the server's, where some sites are dishonest
    from_final: bool = False  # starts from the federation's model


def alone(config: Config) -> Role:
    """Every site on its own data, with as much work as in the federation."""
    return Role(ALONE, _quiet(config) | BY_ITSELF | _setting("LocalOnly"))


def pooled(config: Config) -> Role:
    """All data in one place, with the work of the whole federation."""
    return Role(POOLED, _quiet(config) | BY_ITSELF | _setting("Centralised"))


def fine_tuned(config: Config, rounds: int) -> Role:
    """The federation's model, trained on by every site on its own data."""
    everybody = {
        "sampler": {
            "_target_": "fedexp.federation.sampling.Full",
            "cohort_size": config["n_clients"],
        },
        "cohort_size": config["n_clients"],
        "rounds": rounds,
        "eval_every": rounds,
    }
    changed = _quiet(config) | BY_ITSELF | everybody | _setting("LocalOnly")
    return Role(FINE_TUNED, changed, from_final=True)


def without(config: Config, site: int, name: str) -> Role:
    """The federation, in which one site never takes part."""
    sampler = {
        "_target_": "fedexp.federation.sampling.AllBut",
        "left_out": site,
        "sampler": config["sampler"],
    }
    changed = _quiet(config) | {"sampler": sampler, "min_clients": 1}
    return Role(f"without {name}", changed, left_out=site)


def attacked(config: Config, attack: Config, n: int, rule: str, aggregator: Config) -> Role:
    """The federation with `n` dishonest sites, the same whatever the rule."""
    told = {"assumed_malicious": n} if "assumed_malicious" in aggregator else {}
    adversary = {**attack, "n_malicious": n, "fraction": 0.0, "first_round": 0}
    changed = _quiet(config) | {"attack": adversary, "aggregator": {**aggregator, **told}}
    return Role(f"{rule}, attacked", changed | {"assumed_malicious": n}, rule=rule)


def _quiet(config: Config) -> dict[str, Any]:
    """A run that nobody watches: what it records and says is only in the way."""
    return {
        **config,
        "eval_every": config["rounds"],
        "backend": backend_of_studies(config),
        "record_updates": False,
        "tracker": {},
        "leakage": {},
        "verdict": {},
        "quiet": True,
        "early_stopping": {
            **config["early_stopping"],
            **({"patience": None} if "patience" in config["early_stopping"] else {}),
        },
    }


def _setting(name: str) -> dict[str, Any]:
    return {"setting": {"_target_": SETTINGS + name}}


def dishonest(share: float, sites: Sequence[object]) -> int:
    """How many sites flip their updates: the share to the nearest, at least one.

    >>> dishonest(0.25, range(5)), dishonest(0.25, range(3)), dishonest(0.0, range(5))
    (1, 1, 0)
    """
    return max(1, round(share * len(sites))) if share > 0 else 0
