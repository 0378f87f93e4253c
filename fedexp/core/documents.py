"""Reads small documents that anybody may have written: a bounded number of bytes, bounded nesting.

A file in a stranger's folder may be a pipe that nobody writes to, a link to a device that never
ends, a YAML whose aliases unfold to 10^12 items, or a list in a list a hundred thousand deep. Each
is an InputError in one line, in no time.
"""

from __future__ import annotations

import json
import os
import re
import stat
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from fedexp.core.checks import InputError

DOCUMENT_BYTES = 2**28  # of a JSON document: partition.json names every example
TABLE_BYTES = 2**32  # of a table, which grows with the rounds
YAML_BYTES = 2**20
DEEPEST = 64
_REMEMBERED = 64  # letters of a scalar that is kept, should it come again
_PLAIN_COLLECTIONS = (None, "!", "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")


def read_regular(path: Path, most: int) -> bytes:
    """The content of a file of at most `most` bytes, or of what a link to one leads to.

    Raises:
        FileNotFoundError: there is none.
        InputError: it is a folder, a pipe, a device or too large.
    """
    descriptor = os.open(
        path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    )
    with open(descriptor, "rb") as file:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise InputError("is no regular file", "file", path)
        if about.st_size > most:
            reason = f"has {about.st_size:,} bytes; at most {most:,} are read"
            raise InputError(reason, "file", path)
        return file.read(about.st_size)


def read_text(path: Path, most: int) -> str:
    """The same as text; what is not UTF-8 in it is replaced."""
    return read_regular(path, most).decode(errors="replace")


def parse_json(text: str) -> Any:
    """What JSON text says; ValueError if it says nothing, or nests too deep."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it nests too deep") from None


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object that a file holds; InputError names the file if it holds none."""
    try:
        content = parse_json(read_text(path, DOCUMENT_BYTES))
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"is not valid JSON ({error})", "file", path) from None
    if not isinstance(content, dict):
        raise InputError("must hold one JSON object", "file", path)
    return content


def read_yaml_mapping(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds, as OmegaConf reads what OmegaConf wrote.

    Aliases are refused: what is written for a run has none, and few of them unfold to anything.
    """
    try:
        content = _parsed(read_regular(path, YAML_BYTES).decode())
    except InputError:
        raise
    except (yaml.YAMLError, ValueError) as error:
        line = " ".join(str(error).split())
        raise InputError(f"is not a YAML mapping ({line})", "file", path) from None
    if not isinstance(content, dict):
        raise InputError("is not a YAML mapping", "file", path)
    return {str(key): value for key, value in content.items()}


def _parsed(text: str) -> Any:
    """What a YAML document says, put together event by event, so that nothing unfolds.

    In one pass: PyYAML's own loader is another, over nodes, and as long again.

    Raises:
        ValueError: aliases, a nesting deeper than `DEEPEST`, several documents, or what JSON cannot
            say: bytes, sets, names of several kinds.
        yaml.YAMLError: it is no YAML.
    """
    documents: list[Any] = []
    within = [documents]  # the collections that an event lies in, the innermost last
    for event in yaml.parse(text, _Loader):
        match event:
            case yaml.ScalarEvent():
                read = _scalar if len(event.value) <= _REMEMBERED else _scalar.__wrapped__
                within[-1].append(read(event.tag, event.value, event.implicit))
            case yaml.CollectionStartEvent():
                if event.tag not in _PLAIN_COLLECTIONS:
                    raise ValueError(f"it holds {event.tag}")
                within.append([])
                if len(within) - 1 > DEEPEST:
                    raise ValueError("it nests too deep")
            case yaml.SequenceEndEvent():
                items = within.pop()
                within[-1].append(items)
            case yaml.MappingEndEvent():
                items = within.pop()
                within[-1].append(_mapping(items[::2], items[1::2]))
            case yaml.AliasEvent():
                raise ValueError("it uses aliases (*name)")
            case yaml.DocumentStartEvent() if documents:
                raise ValueError("it holds several documents")
    return documents[0] if documents else None


def _mapping(names: list[Any], values: list[Any]) -> dict[Any, Any]:
    if not all(isinstance(name, str | int) for name in names) or len(set(map(type, names))) > 1:
        raise ValueError("its names are of several kinds")
    return dict(zip(names, values, strict=True))


@lru_cache(maxsize=4096)
def _scalar(tag: str | None, value: str, implicit: tuple[bool, bool]) -> str | int | float | None:
    """A string, a number or nothing; configs of a sweep say the same ones again and again."""
    loader = _Loader("")
    if tag in (None, "!"):
        tag = loader.resolve(yaml.ScalarNode, value, implicit)
    said = loader.construct_document(yaml.ScalarNode(tag, value))
    if not isinstance(said, str | int | float | None):
        raise ValueError(f"it holds {type(said).__name__}")
    return said


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Reads what OmegaConf writes as OmegaConf does, ten times faster where libyaml is there."""


# Dates stay strings; and 1e-3, which YAML 1.1 takes for a string, is a number.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?[0-9][0-9_]*\.?[0-9_]*[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)
