"""What is wrong with the keys at the root of a config, and with those that are the builder's own.

Parts check their own arguments. Here is what no part takes: numbers of rounds and clients, and
which groups must have a choice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from fedexp.config.pace import check_pace
from fedexp.config.parts import Config, required
from fedexp.core.checks import InputError, at_least, in_range
from fedexp.data.imbalance import check_factor

GROUPS = (
    "dataset",
    "task",
    "partition",
    "model",
    "training",
    "algorithm",
    "worker_momentum",
    "sampler",
    "setting",
    "attack",
    "privacy",
    "channel",
    "update_validation",
    "detector",
    "aggregator",
    "server_optimizer",
    "backend",
    "early_stopping",
)
POSITIVE = (
    "rounds",
    "n_clients",
    "cohort_size",
    "min_clients",
    "max_failed_rounds",
    "checkpoint_every",
)


def check_root(config: Config) -> None:
    """Raise InputError for a config without its choices, or with numbers that cannot be."""
    for group in GROUPS:
        required(config[group], "_target_", group)
    for group in ("pre_aggregation", "leakage", "tracker"):
        for name in config[group]:
            if not re.fullmatch(r"\w[\w-]*", str(name)):  # it becomes a key's, and a folder's
                raise InputError("must be made of letters, digits, _ and -", group, name)
    for name, mixer in config["pre_aggregation"].items():
        if not isinstance(mixer, Mapping) or "_target_" not in mixer:
            raise InputError("is not chosen", f"pre_aggregation.{name}", mixer)
    for key in ("fraction", "n_malicious", "first_round"):
        required(config["attack"], key, "attack")
    check_factor(config["dataset"].get("imbalance"), config["dataset"].get("imbalance_of", "train"))
    if config["seed"] < 0:  # of any length: streams are keyed by it, nothing counts with it
        at_least(0, seed=config["seed"])
    for key in POSITIVE:
        at_least(1, **{key: config[key]})
    check_pace(config)
    _check_adversary(config)
    if config["cohort_size"] > everybody(config):
        on_top = everybody(config) - config["n_clients"]
        more = f", and {on_top} malicious ones on top" if on_top else ""
        raise InputError(
            "a cohort cannot be larger than the federation "
            f"(n_clients={config['n_clients']}{more})",
            "cohort_size",
            config["cohort_size"],
        )
    if config["min_clients"] > config["cohort_size"]:
        raise InputError(
            f"would skip nearly every round: cohort_size is {config['cohort_size']}",
            "min_clients",
            config["min_clients"],
        )
    at_least(0, assumed_malicious=config["assumed_malicious"])
    recorded = config["record_updates"]
    if not isinstance(recorded, bool) and recorded not in ("safetensors", "pth"):  # 1 == True
        allowed = "Allowed: false, true (both), safetensors, pth"
        raise InputError(allowed, "record_updates", recorded)
    if config["mean_last_rounds"] is not None:
        at_least(1, mean_last_rounds=config["mean_last_rounds"])
    if config["train_examples"] is not None:
        at_least(1, train_examples=config["train_examples"])


def everybody(config: Config) -> int:
    """How many clients may take part in a round: with the malicious ones that come on top."""
    attack = config["attack"]
    on_top: int = attack["n_malicious"] if attack.get("extra_clients", False) else 0
    n_clients: int = config["n_clients"]
    return n_clients + on_top


def _check_adversary(config: Config) -> None:
    extra = config["attack"].get("extra_clients", False)
    if not isinstance(extra, bool):
        raise InputError("must be true or false", "attack.extra_clients", extra)
    in_range(0, 1, **{"attack.fraction": config["attack"]["fraction"]})
    n_malicious = config["attack"]["n_malicious"]
    if not isinstance(n_malicious, int) or isinstance(n_malicious, bool):
        raise InputError("must be a whole number", "attack.n_malicious", n_malicious)
    in_range(0, config["n_clients"], **{"attack.n_malicious": n_malicious})
