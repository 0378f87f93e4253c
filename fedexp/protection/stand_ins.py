"""A config from which parts can be made though their noise is still to be calibrated.

Here is checked, before any part is made, that the noise is given once: as such, or as a target.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from fedexp.config.parts import Config, prefixed, required
from fedexp.config.refusals import part_of
from fedexp.core.checks import InputError, positive
from fedexp.privacy.calibration import LEAST_NOISE
from fedexp.protection.terms import target_epsilon_of

OF_GAUSSIAN_NOISE = ("delta", "accountant", "target_epsilon", "max_epsilon", "allow_no_noise")
NEEDED: Mapping[str, tuple[str, ...]] = {  # by mechanism: the keys of its promise
    "PrivateSteps": OF_GAUSSIAN_NOISE,
    "ClientLevel": (*OF_GAUSSIAN_NOISE, "sampling"),
    "LocalGaussian": OF_GAUSSIAN_NOISE,
    "LocalLaplace": ("target_epsilon", "max_epsilon"),
    "Skellam": ("delta", "target_epsilon", "max_epsilon"),
}
INSTEAD_OF_NO_NOISE = {  # by mechanism that always has some: what clips and adds none
    "LocalLaplace": "privacy=local_gaussian (which clips in L2) with privacy.allow_no_noise=true",
    "Skellam": "channel=secure_aggregation",
}
NOISE = ("noise_multiplier", "epsilon_per_release", "delta_per_release")
STAND_IN = LEAST_NOISE  # so little that no part refuses it before the true one is known


def with_stand_ins(config: Config) -> Config:
    """The config with a number wherever noise is still to be calibrated, so that parts can be made.

    Raises:
        InputError: the noise is given twice, or not at all.
    """
    privacy, channel = config["privacy"], config["channel"]
    mechanism = part_of(config, "privacy")
    if mechanism in NEEDED:
        _check_promise(privacy, mechanism, "privacy")
        with prefixed("privacy"):
            privacy = _standing_in(privacy, privacy["target_epsilon"], "privacy")
    encoder = channel.get("encoder")
    if isinstance(encoder, Mapping) and str(encoder.get("_target_")).endswith(".Skellam"):
        _check_promise(channel, "Skellam", "channel")
        with prefixed("channel.encoder"):
            encoder = _standing_in(encoder, channel["target_epsilon"], "channel")
        channel = {**channel, "encoder": encoder}
    return {**config, "privacy": privacy, "channel": channel}


def _check_promise(node: Config, mechanism: str, group: str) -> None:
    for key in NEEDED[mechanism]:
        required(node, key, group)
    target = target_epsilon_of(node)
    if target == math.inf and mechanism in INSTEAD_OF_NO_NOISE:
        raise InputError(
            "asks for no noise, which this mechanism always has; use a finite number, or "
            f"{INSTEAD_OF_NO_NOISE[mechanism]}",
            f"{group}.target_epsilon",
            target,
        )
    if target is not None and target != math.inf:
        positive(**{f"{group}.target_epsilon": target})
    if node["max_epsilon"] is not None:
        positive(**{f"{group}.max_epsilon": node["max_epsilon"]})
    allow = node.get("allow_no_noise", False)
    if not isinstance(allow, bool):
        raise InputError("must be true or false", f"{group}.allow_no_noise", allow)


def _standing_in(node: Config, target_epsilon: object, group: str) -> Config:
    """A node whose noise is given, or stands in until it is calibrated."""
    given = {key: node[key] for key in NOISE if node.get(key) is not None}
    if target_epsilon is not None:
        if given:
            key, value = next(iter(given.items()))
            raise InputError(
                f"the noise is given twice; leave it out, or {group}.target_epsilon", key, value
            )
        stands = "noise_multiplier" if "noise_multiplier" in node else "epsilon_per_release"
        return {**node, stands: STAND_IN}
    if not given:
        key = next((key for key in NOISE if key in node), "noise_multiplier")
        raise InputError(
            f"the noise is not given; set it, or {group}.target_epsilon", key, node.get(key)
        )
    return node
