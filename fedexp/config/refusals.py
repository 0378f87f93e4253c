"""What does not go together: combinations of parts that are refused, each with the ways out.

By the names of the chosen parts, before anything is built. A part's own preconditions are its own
business, and numbers of clients are rehearsed by `build`.

Not among them: worker momentum, which goes with every mechanism. What DP-SGD made private stays so
whatever is averaged afterwards; and where updates are clipped (client-level and local DP), that is
done to what a client sends, its momentum, so that one client moves a sum by the clip norm at most.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedexp.core.checks import InputError

Config = Mapping[str, Any]

ONLY_FEDERATED = "needs setting=federated: nothing is shared in this one"
LOCAL = ("LocalGaussian", "LocalLaplace")


def refuse(config: Config) -> None:
    """Raise InputError for a combination that would not do, or not mean, what it says."""
    setting, mechanism = part_of(config, "setting"), part_of(config, "privacy")
    secure = part_of(config, "channel") == "SecureAggregation"
    if setting != "Federated":
        _refuse_defences(config)
        if mechanism in ("ClientLevel", *LOCAL):
            raise InputError(
                f"{ONLY_FEDERATED}, so no update needs hiding; use privacy=dp_sgd, or none",
                "privacy",
                config["privacy"]["_target_"],
            )
        if secure:
            raise InputError(ONLY_FEDERATED, "channel", config["channel"]["_target_"])
    if setting == "LocalOnly" and not _plain_server(config):
        raise InputError(
            "setting=local_only has no server; use server_optimizer=sgd with lr=1",
            "server_optimizer",
            config["server_optimizer"]["_target_"],
        )
    if setting == "LocalOnly" and config["leakage"]:
        raise InputError(
            "there is no shared model to study with setting=local_only",
            "leakage",
            ",".join(config["leakage"]),
        )
    action, weighting = config["detector"].get("action"), config["aggregator"].get("weighting")
    if action == "down_weight" and weighting != "examples":
        raise InputError(
            f"has no effect on aggregator={part_of(config, 'aggregator')}, which weighs clients "
            "alike; use action=drop, or a rule with weighting=examples",
            "detector.action",
            action,
        )
    if secure:
        _refuse_behind_sums(config, mechanism)
    if mechanism == "ClientLevel":
        _refuse_with_client_level(config)
    if mechanism == "LocalLaplace" and "clip_norm" in config["privacy"]:
        raise InputError(
            "Laplace noise needs an L1 clip: behind an L2 clip it costs up to sqrt(d) times the "
            "epsilon; use clip_norm_l1, or privacy=local_gaussian",
            "privacy.clip_norm",
            config["privacy"]["clip_norm"],
        )


def part_of(config: Config, group: str) -> str:
    """The class that a group's choice names."""
    return str(config[group]["_target_"]).rpartition(".")[2]


def _plain_server(config: Config) -> bool:
    return part_of(config, "server_optimizer") == "SGD" and (
        config["server_optimizer"].get("lr") == 1
    )


def _refuse_defences(config: Config) -> None:
    """There is no server that could be attacked, or defend itself."""
    n_malicious = config["attack"]["n_malicious"]
    if n_malicious:
        raise InputError(ONLY_FEDERATED, "attack.n_malicious", n_malicious)
    if config["pre_aggregation"]:
        raise InputError(ONLY_FEDERATED, "pre_aggregation", ",".join(config["pre_aggregation"]))
    if part_of(config, "worker_momentum") != "NoMomentum":
        raise InputError(ONLY_FEDERATED, "worker_momentum", config["worker_momentum"]["_target_"])
    if part_of(config, "detector") != "NoDetector":
        raise InputError(ONLY_FEDERATED, "detector", config["detector"]["_target_"])


def _refuse_behind_sums(config: Config, mechanism: str) -> None:
    """The server sees one sum a group, and no update of anybody."""
    groups, encoder = config["channel"].get("groups"), config["channel"].get("encoder")
    skellam = isinstance(encoder, Mapping) and str(encoder.get("_target_")).endswith(".Skellam")
    if mechanism == "ClientLevel" and config["privacy"].get("adaptive"):
        raise InputError(
            "adaptive clipping counts who was clipped, and secure aggregation hides every update; "
            "use privacy.adaptive=false with channel=secure_skellam, or channel=plain",
            "privacy.adaptive",
            config["privacy"]["adaptive"],
        )
    if mechanism == "ClientLevel":
        raise InputError(
            "the server has to clip every update, and secure aggregation hides them; use "
            "channel=secure_skellam with privacy=none (the clients clip and add the noise), or "
            "channel=plain",
            "privacy",
            config["privacy"]["_target_"],
        )
    if skellam and mechanism != "NoPrivacy":
        raise InputError(
            "channel=secure_skellam is a mechanism of its own, and a run keeps one account; use "
            "privacy=none, or channel=secure_aggregation",
            "privacy",
            config["privacy"]["_target_"],
        )
    if groups == 1:
        _refuse_rules_behind_one_sum(config, skellam)
    if isinstance(groups, int) and config["min_clients"] > groups:
        raise InputError(
            f"counts rows, and {groups} reach the server through secure aggregation; use "
            "min_clients=1, and channel.threshold for how many clients must stay",
            "min_clients",
            config["min_clients"],
        )


def _refuse_rules_behind_one_sum(config: Config, skellam: bool) -> None:
    ways_out = (
        "secure aggregation hides individual updates and the server sees one sum; use {}, "
        "channel.groups=g for the sums of g groups, or channel=plain"
    )
    if part_of(config, "aggregator") != "Mean":
        raise InputError(
            ways_out.format("aggregator=mean"), "aggregator", config["aggregator"]["_target_"]
        )
    if part_of(config, "detector") != "NoDetector":
        raise InputError(
            ways_out.format("detector=none"), "detector", config["detector"]["_target_"]
        )
    if config["pre_aggregation"]:
        raise InputError(
            ways_out.format("pre_aggregation=none"),
            "pre_aggregation",
            ",".join(config["pre_aggregation"]),
        )
    if (cap := config["hygiene"].get("norm_cap")) is not None:
        raise InputError(ways_out.format("no cap"), "hygiene.norm_cap", cap)
    weighting, masked = config["aggregator"].get("weighting"), config["channel"].get("weighting")
    if weighting == "uniform" and masked == "examples" and not skellam:
        raise InputError(
            "clients weigh in the sum what channel.weighting says; set that to uniform too",
            "aggregator.weighting",
            weighting,
        )


def _refuse_with_client_level(config: Config) -> None:
    """One client may move the released sum by the clip norm, and by no more."""
    if part_of(config, "aggregator") != "Mean":
        raise InputError(
            "client-level DP knows how far one client moves a mean, and no such bound for this "
            "rule; use aggregator=mean, or noise in the clients: privacy=local_gaussian or dp_sgd",
            "aggregator",
            config["aggregator"]["_target_"],
        )
    other = "one client could change what becomes of the others, which no noise is there for"
    if part_of(config, "detector") != "NoDetector":
        raise InputError(
            f"{other}; use detector=none, or noise in the clients: privacy=local_gaussian or "
            "dp_sgd",
            "detector",
            config["detector"]["_target_"],
        )
    if config["pre_aggregation"]:
        raise InputError(
            f"{other}; use pre_aggregation=none (client_dp clips by itself), or noise in the "
            "clients: privacy=local_gaussian or dp_sgd",
            "pre_aggregation",
            ",".join(config["pre_aggregation"]),
        )
    if config["min_clients"] > 1:
        raise InputError(
            "whether a round is skipped would tell how many clients it had; a round of client_dp "
            "releases noise even without clients: use min_clients=1",
            "min_clients",
            config["min_clients"],
        )
    sampling, sampler = str(config["privacy"].get("sampling")), part_of(config, "sampler")
    matching = {"poisson": ("Poisson",), "fixed_size": ("Uniform", "Full")}
    if sampling in matching and sampler not in matching[sampling]:
        raise InputError(
            f"this is not how sampler={sampler.lower()} draws clients; use sampler=poisson with "
            "privacy.sampling=poisson, sampler=uniform with privacy.sampling=fixed_size, or "
            "privacy.sampling=none, which counts on no amplification",
            "privacy.sampling",
            sampling,
        )
