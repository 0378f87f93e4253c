"""What the writer of a run folder and its readers agree on. Light: no torch, no pandas.

One list says which keys of a config change no bit of a run's results. Who resumes a run may change
them, and a table does not tell runs apart by them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

COLUMNS = ("round", "scope", "client", "metric", "value")
"""Of metrics.csv, and the keys of a line of metrics.jsonl."""

WITHOUT_EFFECT = (
    *("paths", "backend", "quiet", "plots", "trust", "checkpoint_every"),
    *("record_updates", "leakage", "tracker", "verdict", "store", "mean_last_rounds"),
)
"""Groups and keys that a user may change without changing a single bit of a run's results.

But for a backend that says `own_bits: true`, whose figures differ from others' in the last digits.
"""

_ALONE = "fedexp.backends.auto.Auto"


def backend_of_studies(config: Mapping[str, Any]) -> dict[str, Any]:
    """Of what a study of a run trains, in a process of its own: as the run's, without a pool."""
    backend: dict[str, Any] = config["backend"]
    if backend.get("own_bits"):
        return backend
    return {"_target_": _ALONE, "workers": 1, "rounds": config["rounds"]}


COLUMNS_OF_THEIR_OWN = ("backend", "leakage")
"""Those of them that a table of runs shows all the same: what a run took, and what was found."""

NOT_OF_ROUNDS = (
    *("config.yaml", "origin.json", "partition.json", "summary.json", "fedexp.log", ".lock"),
    *("report.md", "report.html", ".drawn.json", "error.txt", "verdict.json"),
    "thresholds.csv",
    *(".hydra", "plots", "leakage", "verdict", "updates"),
)
"""What in a run's folder is not made by its rounds, or not needed to go on from them."""

PROVENANCE = (
    *("choices", "overrides", "config_folders", "taken_unnamed", "saved_as"),
    "rounds_before",
)
"""Saved beside the config's own keys: how it came about. `config_folders` are those beside the
packaged one, `taken_unnamed` what they gave under a name of ours; both only where there is one.
`saved_as` is the hash of the config of an older version, which checkpoints of that time know;
`rounds_before` are the numbers of rounds that a run had before it was given more."""


_WITHOUT_EFFECT_0_1 = (
    *("paths", "backend", "quiet", "plots", "trust", "checkpoint_every", "leakage"),
    *("choices", "overrides"),
)


def config_hash_0_1(config: Mapping[str, Any]) -> str:
    """The same as version 0.1 took it of its configs, whose checkpoints know it."""
    kept = {k: v for k, v in config.items() if k not in _WITHOUT_EFFECT_0_1}
    if mixers := kept.get("pre_aggregation"):
        kept["pre_aggregation"] = list(mixers.items())
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def config_hash(config: Mapping[str, Any]) -> str:
    """SHA-256 of what decides a run's results; two runs with equal hashes give equal figures.

    >>> config_hash({"seed": 0, "quiet": True}) == config_hash({"seed": 0, "quiet": False})
    True
    """
    kept = {k: v for k, v in config.items() if k not in (*WITHOUT_EFFECT, *PROVENANCE)}
    if mixers := kept.get("pre_aggregation"):
        kept["pre_aggregation"] = list(mixers.items())  # their order counts
    if (kept.get("early_stopping") or {}).get("patience") is None:
        kept.pop("early_stopping", None)  # as if it were not there
    if (config.get("backend") or {}).get("own_bits"):
        kept["backend"] = config["backend"]
    for group, key, nothing in _ABSENT_BEFORE:
        if isinstance(node := kept.get(group), Mapping) and node.get(key, None) in nothing:
            kept[group] = {k: v for k, v in node.items() if k != key}
    if kept.get("from") is None:
        kept.pop("from", None)  # as in runs of the time before there was such a key
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


_EVERY_ROUND = {"share_of_rounds": 1.0, "clients_a_round": None}
_ABSENT_BEFORE = (
    ("attack", "extra_clients", (None, False)),
    ("attack", "warmup", (None,)),
    ("attack", "last_round", (None,)),
    ("attack", "mask_share", (None, 0.0)),
    ("attack", "schedule", (None, _EVERY_ROUND)),
    ("dataset", "imbalance", (None,)),
    ("dataset", "imbalance_of", (None, "train")),
    ("dataset", "normalise", (None, "train")),
    ("dataset", "fixed_mean", (None, 0.5)),
    ("dataset", "fixed_deviation", (None, 0.5)),
    ("aggregator", "start", (None, "mean")),
    ("aggregator", "features", (None, "all")),
    ("training", "drop_last", (None, False)),
    ("partition", "assignment", (None, "even")),
    ("partition", "balanced", (None, False)),
    ("worker_momentum", "malicious_too", (None, True)),
)
"""Keys with values that do nothing, as if they were not there."""


def accepted_hashes(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The hashes that checkpoints of a run with this config may have."""
    shorter = [{**config, "rounds": rounds} for rounds in config.get("rounds_before") or ()]
    hashes = [config_hash(one) for one in (config, *shorter)]
    return tuple(dict.fromkeys([*hashes, str(config.get("saved_as", ""))]))
