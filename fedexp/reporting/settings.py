"""What a config sets, as names and values that can be compared between runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fedexp.run_folder.format import COLUMNS_OF_THEIR_OWN, PROVENANCE, WITHOUT_EFFECT

# What Hydra adds, where the config came from, and what cannot change a figure.
_NOT_SETTINGS = {"hydra", *PROVENANCE, *WITHOUT_EFFECT} - {*COLUMNS_OF_THEIR_OWN}


def choice_name(chosen: object) -> str:
    """The name of what was chosen of a config group, also where several were chosen in a row.

    >>> choice_name("krum"), choice_name(["clipping", "nnm"])
    ('krum', 'clipping + nnm')
    """
    return " + ".join(map(str, chosen)) if isinstance(chosen, list) else str(chosen)


def choices_of(config: Mapping[str, Any]) -> dict[str, str]:
    """The choice of every config group that is a setting, by dotted name."""
    chosen = config.get("choices") or {}
    return {
        group.replace("/", "."): "null" if name is None else choice_name(name)
        for group, name in chosen.items()
        if group.split("/")[0] not in _NOT_SETTINGS
    }


def leaves_of(config: Mapping[str, Any]) -> dict[str, object]:
    """Every setting below the groups, by dotted name, as a value that can be compared."""
    leaves: dict[str, object] = {}

    def walk(node: object, name: str) -> None:
        if isinstance(node, Mapping):
            for key, value in node.items():
                walk(value, f"{name}.{key}" if name else str(key))
        elif node is None or isinstance(node, list):
            leaves[name] = json.dumps(node)
        else:
            leaves[name] = node

    walk({key: value for key, value in config.items() if key not in _NOT_SETTINGS}, "")
    return leaves
