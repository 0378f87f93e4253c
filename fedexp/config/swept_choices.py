"""The configs of a sweep's jobs, from far fewer compositions than there are jobs.

To compose is to find and merge the files of the groups, a quarter of a second a job. The jobs of a
grid differ in the choice of few groups, and a group's file mostly writes under the group's name
alone. So every choice is composed once, beside the choices of one job (the first), and another
job's config is the first's with the parts of its choices put in: the 1,080 jobs of 15 attacks, 20
rules, 2 partitions and 3 seeds take 35 compositions.

That is the same config where a choice, beside the first job's, changes nothing in Hydra's defaults
list but its own file, which writes under its group's name: what is merged there, and in which
order, is then no matter of the other choices. Where it changes more (presets, choices with
defaults of their own, `@package _global_`), the job is composed whole.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

from hydra.errors import HydraException
from omegaconf import DictConfig, open_dict

from fedexp.core.checks import InputError

Entry = tuple[str | None, str | None, bool]
"""Of a defaults list: file, where in the config it writes, and whether it is a `_self_`."""

Lines = tuple[str, ...]
"""Choices as they are said, `attack=alie`, one a group, in the order of the command line."""


@final
@dataclass(frozen=True)
class Composed:
    """What Hydra makes of choices."""

    config: DictConfig
    entries: tuple[Entry, ...]


@final
@dataclass(frozen=True)
class _Part:
    """What a choice makes of its group's part of a config."""

    group: str
    node: Any
    choice: Any


class SweptChoices:
    """Configs of choices of groups, each given as a copy.

    Args:
        compose: what Hydra makes of choices.
    """

    def __init__(self, compose: Callable[[Lines], Composed]) -> None:
        self._compose = compose
        self._whole: dict[Lines, tuple[bytes, tuple[Entry, ...]]] = {}
        self._first: dict[Lines, Lines] = {}  # groups -> the choices that others are put into
        self._parts: dict[tuple[Lines, int, str], _Part | None] = {}

    def config(self, lines: Lines) -> DictConfig:
        """The config of these choices, before any value is set."""
        if lines in self._whole:
            return self._copy(lines)
        first = self._first.setdefault(tuple(map(_group, lines)), lines)
        others = [place for place, line in enumerate(lines) if line != first[place]]
        parts = [self._part(first, k, lines[k]) for k in others] if len(others) > 1 else [None]
        if None in parts:
            return self._copy(lines)
        config = self._copy(first)
        with open_dict(config):
            for part in parts:
                assert part is not None
                config[part.group] = part.node
                config.hydra.runtime.choices[part.group] = part.choice
        return config

    def _copy(self, lines: Lines) -> DictConfig:
        config: DictConfig = pickle.loads(self._found(lines)[0])  # faster than to copy
        return config

    def _found(self, lines: Lines) -> tuple[bytes, tuple[Entry, ...]]:
        if lines not in self._whole:
            composed = self._compose(lines)
            self._whole[lines] = pickle.dumps(composed.config), composed.entries
        return self._whole[lines]

    def _part(self, first: Lines, place: int, line: str) -> _Part | None:
        """What `line`, in its place among the first choices, makes of its group's part alone."""
        key = first, place, line
        if key not in self._parts:
            self._parts[key] = self._alone(first, place, line)
        return self._parts[key]

    def _alone(self, first: Lines, place: int, line: str) -> _Part | None:
        group, varied = _group(line), (*first[:place], line, *first[place + 1 :])
        try:
            entries, before = self._found(varied)[1], self._found(first)[1]
            config, base = self._copy(varied), self._copy(first)
        except (HydraException, InputError):  # it may fit the other choices, if not these
            return None
        if group not in config or _beside(entries, line) != _beside(before, first[place]):
            return None
        choices, was = (dict(c.hydra.runtime.choices) for c in (config, base))
        if list(choices) != list(was):  # a list of choices is not noted there
            return None
        if any(choices[other] != was[other] for other in was if other != group):
            return None
        node = copy.deepcopy(config._get_node(group))
        node._set_parent(None)  # type: ignore[union-attr]
        return _Part(group, node, choices[group])


def _group(line: str) -> str:
    """`attack` of `attack=alie`; with what stands before it (`+`, `~`), which is no group's name.

    >>> _group("attack=alie"), _group("+attack=alie"), _group("model@teacher=cnn")
    ('attack', '+attack', 'model@teacher')
    """
    return line.partition("=")[0]


def _beside(entries: Sequence[Entry], line: str) -> list[Entry | str]:
    """The defaults list with one mark for the files that `line` names.

    Of these, such as write under their group's name; others are left in.

    >>> _beside([("attack/alie", "attack", False), ("config", "", True)], "attack=alie")
    ['attack', ('config', '', True)]
    """
    group, _, value = line.partition("=")
    files = {f"{group}/{name.strip()}" for name in value.strip("[]").split(",")}
    found: list[Entry | str] = []
    for entry in entries:
        if entry[0] not in files or entry[1] != group:
            found.append(entry)
        elif not found or found[-1] != group:
            found.append(group)
    return found


def entries_of(defaults: Sequence[Any]) -> tuple[Entry, ...]:
    """Hydra's defaults list in plain values."""
    return tuple((d.config_path, d.package, bool(d.is_self)) for d in defaults)
