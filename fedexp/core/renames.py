"""What parts and keys were called before, so that saved runs and old command lines keep working.

For one release. Whoever uses an old name is told the new one, once, in a line on stderr.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

TARGETS = {
    "fedexp.hygiene.StandardHygiene": "fedexp.federation.update_validation.StandardValidation",
    "fedexp.hygiene.NoHygiene": "fedexp.federation.update_validation.NoValidation",
    **{
        f"fedexp.sampling.{name}": f"fedexp.federation.sampling.{name}"
        for name in ("Full", "Uniform", "Poisson")
    },
    **{
        f"fedexp.settings.{name}": f"fedexp.federation.settings.{name}"
        for name in ("Federated", "Centralised", "LocalOnly")
    },
    "fedexp.training.dp_sgd.PrivateSteps": "fedexp.privacy.dp_sgd.DPSGD",
    "fedexp.privacy.client_level.ClientLevel": "fedexp.privacy.client_dp.ClientDP",
    "fedexp.privacy.local.LocalGaussian": "fedexp.privacy.local_dp.LocalGaussianDP",
    "fedexp.privacy.local.LocalLaplace": "fedexp.privacy.local_dp.LocalLaplaceDP",
    "fedexp.leakage.update_inversion.UpdateInversion": (
        "fedexp.leakage.updates.inversion.UpdateInversion"
    ),
    "fedexp.leakage.analytic.Analytic": "fedexp.leakage.updates.analytic.Analytic",
    "fedexp.leakage.deep_leakage.DeepLeakage": "fedexp.leakage.updates.deep_leakage.DeepLeakage",
    "fedexp.leakage.geiping.Geiping": "fedexp.leakage.updates.geiping.Geiping",
    "fedexp.leakage.exposure.Exposure": "fedexp.leakage.updates.exposure.Exposure",
    "fedexp.leakage.recorded.RecordedUpdates": "fedexp.leakage.updates.recorded.RecordedUpdates",
    "fedexp.leakage.loss_threshold.LossThreshold": (
        "fedexp.leakage.membership.loss_threshold.LossThreshold"
    ),
    "fedexp.leakage.lira.LiRA": "fedexp.leakage.membership.lira.LiRA",
    "fedexp.leakage.model_inversion.ModelInversion": (
        "fedexp.leakage.model.inversion.ModelInversion"
    ),
    "fedexp.leakage.audit.OneRunAudit": "fedexp.leakage.audit.study.OneRunAudit",
}
# What a run did before there was a choice.
BEFORE: dict[str, dict[str, Any] | str | None] = {
    "from": None,
    "mean_last_rounds": None,
    "store": "none",
    "verdict": {},
    "task": {
        "_target_": "fedexp.tasks.multiclass.Multiclass",
        "loss": "cross_entropy",
        "gamma": 2.0,
        "class_weights": "none",
    },
    "algorithm": {"_target_": "fedexp.federation.algorithms.fedavg.FedAvg"},
    "worker_momentum": {"_target_": "fedexp.federation.worker_momentum.NoMomentum"},
    "early_stopping": {
        "_target_": "fedexp.observers.early_stopping.EarlyStopping",
        "patience": None,
        "metric": "accuracy",
        "min_delta": 0.0,
    },
    "tracker": {},
}
# Parts of 0.1 that mean something else by default now: what they meant then.
MEANT: dict[str, dict[str, Callable[[dict[str, Any]], dict[str, Any]]]] = {
    "attack": {
        **{
            f"fedexp.attacks.{name}": lambda node: {"direction": "down", **node}
            for name in ("alie.Alie", "optimal.OptimalAlie")
        },
        **{
            f"fedexp.attacks.min_max.{name}": lambda node: {
                **node,
                "perturbation": {"std": "std_down"}.get(node["perturbation"], node["perturbation"]),
            }
            for name in ("MinMax", "MinSum")
        },
    },
    "aggregator": {
        "fedexp.aggregation.geometric_median.GeometricMedian": lambda node: {
            **{k: v for k, v in node.items() if k != "iterations"},
            "max_iterations": node["iterations"],
            "tolerance": 0.0,
        },
    },
}
MOMENTUM = {"damped": True, "start": "first_update", "malicious_too": True}
# Of what was training.worker_momentum.

_said: set[str] = set()


def say(old: str, new: str) -> None:
    """Tell the new name, once."""
    if old not in _said:
        _said.add(old)
        print(f"fedexp: {old} is called {new} now", file=sys.stderr)


def present_target(name: str) -> str:
    """What a `_target_` is called now.

    >>> present_target("fedexp.aggregation.mean.Mean")
    'fedexp.aggregation.mean.Mean'
    """
    if name not in TARGETS:
        return name
    say(name, TARGETS[name])
    return TARGETS[name]


def present_targets(node: Any) -> Any:
    """A part of a config with every `_target_` in it as it is called now."""
    if isinstance(node, Mapping):
        changed = {key: present_targets(child) for key, child in node.items()}
        if isinstance(changed.get("_target_"), str):
            changed["_target_"] = present_target(changed["_target_"])
        return changed
    if isinstance(node, list):
        return [present_targets(child) for child in node]
    return node


def present_config(saved: Mapping[str, Any]) -> dict[str, Any]:
    """A run's config as this version would have written it; itself, if it did."""
    config = {key: present_targets(node) for key, node in saved.items()}
    if "task" not in config:  # as all runs of 0.1
        _keep_what_they_meant(config)
    if "hygiene" in config:
        say("hygiene", "update_validation")
        config["update_validation"] = config.pop("hygiene")
    for group, node in BEFORE.items():
        config.setdefault(group, dict(node) if isinstance(node, dict) else node)
    training = config.get("training")
    if isinstance(training, Mapping) and "worker_momentum" in training:
        say("training.worker_momentum", "worker_momentum.beta")
        config["training"] = {k: v for k, v in training.items() if k != "worker_momentum"}
        if training["worker_momentum"]:
            momentum = "fedexp.federation.worker_momentum.Momentum"
            beta = training["worker_momentum"]
            config["worker_momentum"] = {"_target_": momentum, "beta": beta, **MOMENTUM}
    channel, skellam = config.get("channel"), "fedexp.channel.secure_skellam.SecureSkellam"
    if isinstance(channel, Mapping) and "target_epsilon" in channel:
        config["channel"] = {**channel, "_target_": skellam}
    return config


def _keep_what_they_meant(config: dict[str, Any]) -> None:
    """Give parts of 0.1, in place, the values under which they do what they did then."""
    for group, targets in MEANT.items():
        node = config.get(group)
        if isinstance(node, Mapping):
            config[group] = targets.get(str(node.get("_target_")), dict)(dict(node))


def present_overrides(overrides: Sequence[str]) -> list[str]:
    """A command line with keys as they are called now.

    >>> present_overrides(["rounds=3", "+aggregator.weighting=uniform"])
    ['rounds=3', '+aggregator.weighting=uniform']
    """
    found = []
    for override in overrides:
        parts = re.fullmatch(r"([+~]{0,2})([\w./@]+)(=.*)?", override, re.DOTALL)
        sign, key, value = parts.groups() if parts else ("", "", None)
        if key == "training.worker_momentum" and value is not None:
            say(key, "worker_momentum.beta")
            found += ["worker_momentum=momentum", f"worker_momentum.beta{value}"]
        elif key.partition(".")[0] == "hygiene":
            say("hygiene", "update_validation")
            found.append(f"{sign}update_validation{key.removeprefix('hygiene')}{value or ''}")
        else:
            found.append(override)
    return found
