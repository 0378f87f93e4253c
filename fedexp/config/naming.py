"""Figures are named by what ran: by its choice, or by the class where the choice does not tell.

`partition._target_=mine.Patients` is no Dirichlet partition, and a `mean.yaml` of somebody's own in
which another class stands is no mean. So a choice keeps its name while the class is the one that
our YAML of that name states, or, under a name that we do not use, the one that the user's states.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedexp.config.catalogue import stated_target
from fedexp.config.folders import conf_folder
from fedexp.core.renames import present_target

SEVERAL = ("pre_aggregation", "leakage", "tracker")  # groups that hold parts by name


def names_of(
    config: Mapping[str, Any], choices: Mapping[str, str], folders: Sequence[Path]
) -> dict[str, str]:
    """Group -> the name of what runs.

    Args:
        config: resolved.
        choices: group -> choice, as composed; `training/schedule` for a group in a group.
        folders: with configs of the user's own.
    """
    where = [conf_folder(), *folders]
    single = {
        group: _named(choice, _node(config, group), group, where)
        for group, choice in choices.items()
    }
    # Hydra leaves lists out of the choices.
    several = {
        group: "+".join(
            _named(str(name), node, group, where)
            for name, node in (config.get(group) or {}).items()
        )
        or "none"
        for group in SEVERAL
    }
    return {**single, **several}


def _node(config: Mapping[str, Any], group: str) -> object:
    """The part of a group in the config, under the name that the group has there."""
    node: Any = config
    for key in group.split("/"):
        node = node.get(key) if isinstance(node, Mapping) else None
    return node


def _named(choice: str, node: object, group: str, folders: Sequence[Path]) -> str:
    target = node.get("_target_") if isinstance(node, Mapping) else None
    stated = stated_target(list(folders), group, choice)
    if target is None or stated is None or target in (stated, present_target(stated)):
        return choice
    return str(target).split(".")[-1]
