"""What a choice is: its description, the class behind it, every key with meaning and default.

Put together from the choice's YAML, read as text, and the docstring of the class that it names, so
that neither can say what is not there. Used by `fedexp list GROUP CHOICE` and by the documentation.
"""

from __future__ import annotations

import importlib
import inspect
import re
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedexp.config.catalogue import description, groups
from fedexp.core.checks import InputError, did_you_mean

OURS = "fedexp."  # what may be imported to be explained; nobody else's code is
_LINE = re.compile(r"^(?P<indent> *)(?P<key>[\w.@/-]+):(?: +(?P<rest>.*))?$")

_VALUE = re.compile(r"""("[^"]*"|'[^']*'|.*?)(?:(?:^|\s+)#\s*(.*))?$""")


@dataclass(frozen=True)
class Key:
    """One key of a choice."""

    name: str  # dotted, within the group
    default: str  # as the YAML has it
    comment: str  # of the YAML
    meaning: str  # of the class's docstring; "" where it has none


@dataclass(frozen=True)
class Explanation:
    """Everything about one choice."""

    group: str
    choice: str
    description: str
    notes: str  # the YAML's further comments, above its keys
    target: str  # the class, in full; "" where the choice builds nothing by itself
    about: str  # the class's docstring without its arguments
    source: str  # of its module, and of those below its name: the paper, the formula
    keys: tuple[Key, ...]


def explain(folders: list[Path], group: str, choice: str) -> Explanation:
    """What `group=choice` is; the first folder wins.

    Raises:
        InputError: there is no such group, or no such choice in it.
    """
    everything = groups(folders)
    for name, value, allowed in (("GROUP", group, everything), ("CHOICE", choice, None)):
        known = everything[group] if allowed is None else allowed
        if value not in known:
            reason = f"{did_you_mean(value, known)}Allowed: {', '.join(known)}"
            raise InputError(reason, name, value)
    path = next(p for f in folders if (p := f / group / f"{choice}.yaml").is_file())
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    target, keys = _keys(text)
    inside = _under_its_name(choice, keys)
    target = target or inside.get(choice, "")
    about, meanings = _documented(_class(target))
    for node, part in inside.items():
        said = _documented(_class(part))[1]
        meanings |= {f"{node}.{name}": meaning for name, meaning in said.items()}
    modules = (_of_the_module(_class(part)) for part in (target, *inside.values()))
    return Explanation(
        group=group,
        choice=choice,
        description=description(path),
        notes=_notes(text),
        target=target,
        about=about,
        source="\n\n".join(filter(None, dict.fromkeys(modules))),
        keys=tuple(
            Key(name, default, comment, meanings.get(name, "")) for name, default, comment in keys
        ),
    )


def _keys(text: str) -> tuple[str, list[tuple[str, str, str]]]:
    """The `_target_` at the top, and (dotted name, default, comment) of every other key."""
    target = ""
    found: list[tuple[str, str, str]] = []
    above: list[str] = []
    for line in text.splitlines():
        match = _LINE.match(line)
        if match is None:
            if found and line.lstrip().startswith("#") and line.startswith(" "):
                name, default, comment = found[-1]  # a comment that goes on below
                found[-1] = name, default, f"{comment} {line.strip('# ')}".strip()
            continue
        depth = len(match["indent"]) // 2
        above = [*above[:depth], match["key"]]
        value, comment = _split(match["rest"] or "")
        name = ".".join(above)
        if name == "_target_":
            target = value
        elif above[0] != "defaults":
            found.append((name, value, comment))
    return target, [(n, d, c) for n, d, c in found if d or c]


def _under_its_name(choice: str, keys: Iterable[tuple[str, str, str]]) -> dict[str, str]:
    """Node -> class below `NAME:`, where a study stands so that several can be chosen at once."""
    nodes = ((name.rpartition("."), value) for name, value, _ in keys)
    return {
        node: value
        for (node, _, key), value in nodes
        if key == "_target_" and f"{node}.".startswith(f"{choice}.")
    }


def keys_in(text: str) -> list[tuple[str, str, str]]:
    """(dotted name, default, comment) of every key of a YAML, in their order."""
    return _keys(text)[1]


def _split(rest: str) -> tuple[str, str]:
    """A value and its comment."""
    match = _VALUE.match(rest)
    assert match is not None  # it takes every line
    return match[1].strip(), (match[2] or "").strip()


def _notes(text: str) -> str:
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# "))
    return "\n".join(line for line in lines[1:] if line and not line.startswith("@"))


def _class(target: str) -> Any:
    """What a target names, if it is ours."""
    if not target.startswith(OURS):
        return None
    module, _, name = target.rpartition(".")
    return getattr(importlib.import_module(module), name, None)


def _documented(kind: Any) -> tuple[str, dict[str, str]]:
    """A class's docstring up to its arguments, and what it says of each one."""
    text = inspect.getdoc(kind) if kind is not None else None
    about, _, rest = (text or "").partition("\nArgs:\n")
    listed = re.split(r"\n\n(?=\w[\w ]*:\n)", rest, maxsplit=1)[0]
    meanings = {}
    for entry in re.split(r"\n(?=\S)", textwrap.dedent(listed)):
        name, _, meaning = entry.partition(":")
        meanings[name.strip()] = " ".join(meaning.split())
    return about.strip(), meanings


def _of_the_module(kind: Any) -> str:
    module = inspect.getmodule(kind) if kind is not None else None
    return (inspect.getdoc(module) or "").strip() if module is not None else ""


def as_text(of: Explanation) -> str:
    """For a terminal."""
    lines = [f"{of.group}={of.choice}: {of.description}", *of.notes.splitlines(), ""]
    if of.source:
        lines += [of.source, ""]
    if of.about and of.about not in of.source:
        lines += [f"{of.target}: {of.about}", ""]
    width = max((len(f"{of.group}.{k.name}={k.default}") for k in of.keys), default=0)
    for key in of.keys:
        said = key.comment or key.meaning
        lines.append(
            f"  {f'{of.group}.{key.name}={key.default}':<{min(width, 60)}}  {said}".rstrip()
        )
        if key.comment and key.meaning and key.meaning.lower() not in key.comment.lower():
            lines += textwrap.wrap(
                key.meaning, 92, initial_indent=" " * 6, subsequent_indent=" " * 6
            )
    return "\n".join(lines)


def found_by(folders: list[Path], word: str) -> list[tuple[str, str, str]]:
    """Group, choice and description of each choice that has a word in one of them, or in a key."""
    word = word.lower()
    found = []
    for group, choices in groups(folders).items():
        for choice, said in choices.items():
            path = next(p for f in folders if (p := f / group / f"{choice}.yaml").is_file())
            text = path.read_text(encoding="utf-8-sig", errors="replace")
            if word in f"{group}={choice} {text}".lower():
                found.append((group, choice, said))
    return found
