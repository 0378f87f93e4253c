"""`fedexp schema NAME`: what a document of `--json` looks like, as JSON Schema."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fedexp
from fedexp.commands.answers import answer
from fedexp.commands.arguments import EXIT_OK, parser
from fedexp.core.checks import InputError, did_you_mean, one_of

FOLDER = Path(fedexp.__file__).parent / "schemas"


def main(arguments: Sequence[str]) -> int:
    """The command; its exit code."""
    options = parser("schema", "What a document of --json looks like, as JSON Schema.")
    options.add_argument("name", metavar="NAME", nargs="?", help="by default: which there are")
    given = options.parse_args(arguments)
    if given.name is None:
        width = max(map(len, names())) + 2
        text = "\n".join(f"{name:<{width}}{schema(name)['title']}" for name in names())
        answer(text, lambda: {"schema": "schemas/1", "schemas": names()})
    else:
        found = schema(given.name)
        answer(json.dumps(found, indent=2), lambda: found)
    return EXIT_OK


def names() -> list[str]:
    """Of all schemas."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def schema(name: str) -> dict[str, Any]:
    """A schema that stands alone: those that it refers to are within it, under their `$id`.

    Args:
        name: of the schema, or what a document says of itself: `run`, or `run/1`.

    Raises:
        InputError: there is none of that name, or it has another number.
    """
    stem = name.partition("/")[0]
    if stem not in names():
        raise InputError(
            f"{did_you_mean(stem, names())}Allowed: {', '.join(names())}", "NAME", name
        )
    text = (FOLDER / f"{stem}.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    one_of((stem, found["properties"]["schema"]["const"]), NAME=name)
    within = [other for other in names() if f'"$ref": "{other}.json"' in text]
    return {**found, "$defs": {other: schema(other) for other in within}} if within else found
