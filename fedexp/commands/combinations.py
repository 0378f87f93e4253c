"""What a choice can be combined with: tried, by asking the parts as a run would be refused.

Every other choice is put beside it, alone, with everything else by default; where there is an
attack, as many of 10 clients are malicious as its YAML says. The parts are made and asked what they
go with, and the rule is given the rows of a cohort. Data and models are not looked at: by these a
run may still be refused.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, final

from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from yaml import YAMLError  # type: ignore[import-untyped]

from fedexp.commands.in_python import hydra_config
from fedexp.config.build import refuse_parts
from fedexp.config.catalogue import groups
from fedexp.config.found import settle
from fedexp.config.hydra_errors import COMPLAINTS
from fedexp.core.checks import InputError

ASKED = (
    *("training", "algorithm", "worker_momentum", "sampler", "setting", "attack", "privacy"),
    *("channel", "update_validation", "detector", "pre_aggregation", "aggregator"),
    "server_optimizer",
)
"""The groups whose parts say what they go with."""
WIDTH = 98


@final
@dataclass(frozen=True)
class Pair:
    """Another choice beside the one."""

    group: str
    choice: str
    refused: str | None  # why; None: they go together


def combinations(
    folders: Sequence[Path], group: str, choice: str, named: Path | None
) -> tuple[Pair, ...]:
    """Every pair that can be tried; first the choice alone, as a pair with itself.

    Args:
        folders: of configs, the first wins.
        group: of the choice.
        choice: of that group.
        named: what `--config-dir` says.
    """
    if group not in ASKED:
        return ()
    try:
        config = hydra_config([f"{group}={choice}"], named)
        settle(config)
    except COMPLAINTS:
        return ()
    others = [
        (other, name) for other in ASKED if other != group for name in groups(list(folders))[other]
    ]
    with open_dict(config):
        pairs = [_tried(config, folders, *pair) for pair in [(group, choice), *others]]
    return tuple(pair for pair in pairs if pair is not None)


def _tried(config: DictConfig, folders: Sequence[Path], group: str, choice: str) -> Pair | None:
    """None where the choice cannot be made without a value that somebody has to give."""
    before = deepcopy(config[group])  # what is set changes the node that is there
    try:
        config[group] = _node(folders, group, choice)
        resolved = _resolved(config)
    except (*COMPLAINTS, YAMLError, OSError):
        return None
    finally:
        config[group] = before
    try:
        refuse_parts(resolved)
    except InputError as error:
        return Pair(group, choice, str(error))
    return Pair(group, choice, None)


def _resolved(config: DictConfig) -> dict[str, Any]:
    """As `fedexp.commands.resolution.resolve`, without what says how the config came about."""
    return {
        str(key): OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
        if isinstance(node := config[key], DictConfig | ListConfig)
        else node
        for key in config
        if key != "hydra"
    }


def _node(folders: Sequence[Path], group: str, choice: str) -> Any:
    """A choice's YAML with those that its defaults name, as Hydra puts them together."""
    path = next(p for folder in folders if (p := folder / group / f"{choice}.yaml").is_file())
    node = OmegaConf.load(path)
    assert isinstance(node, DictConfig)
    for default in node.pop("defaults", []):
        for name, inner in default.items() if isinstance(default, DictConfig) else ():
            if inner is not None:
                node[name] = _node(folders, f"{group}/{name!s}", inner)
    return node


def as_text(pairs: Sequence[Pair]) -> str:
    """For a terminal; empty where nobody could be asked."""
    if not pairs:
        return ""
    itself, *others = pairs
    lines = ["Goes with (each tried beside it, everything else by default):"]
    if itself.refused is not None:
        lines = [f"Not with the defaults alone: {itself.refused}", "What mends it:"]
    for group, of_group in groupby(others, key=lambda pair: pair.group):
        found = list(of_group)
        lines += textwrap.wrap(
            f"{group:<18}{_of_group(found)}",
            WIDTH,
            initial_indent="  ",
            subsequent_indent=" " * 20,
        )
    refused = [pair for pair in others if pair.refused not in (None, itself.refused)]
    if refused:
        lines += ["Refused:"]
    for reason, alike in _by_reason(refused).items():
        lines += [*_wrapped(", ".join(alike), 2), *_wrapped(reason, 6)]
    return "\n".join(lines)


def _wrapped(text: str, indent: int) -> list[str]:
    margin = " " * indent
    return textwrap.wrap(text, WIDTH, initial_indent=margin, subsequent_indent=margin)


def _of_group(pairs: Sequence[Pair]) -> str:
    good = [pair.choice for pair in pairs if pair.refused is None]
    if len(good) == len(pairs):
        return f"all {len(good)}"
    return ", ".join(good) if good else "none"


def _by_reason(pairs: Sequence[Pair]) -> dict[str, list[str]]:
    """Choices that are refused in the same words, but for what is named in front of them."""
    found: dict[str, list[str]] = {}
    for pair in pairs:
        key, _, reason = str(pair.refused).partition(": ")
        reason = reason if key.startswith(f"{pair.group}=") else str(pair.refused)
        found.setdefault(reason, []).append(f"{pair.group}={pair.choice}")
    return found
