"""`fedexp list`: what can be chosen."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fedexp.commands.answers import answer
from fedexp.commands.arguments import EXIT_OK, parser, trusted
from fedexp.config.catalogue import groups, listing
from fedexp.config.explanation import as_text, explain, found_by
from fedexp.config.folders import config_folders
from fedexp.core.checks import InputError
from fedexp.core.text import printable_lines


def main(arguments: Sequence[str]) -> int:
    """The command; its exit code."""
    options = parser("list", "What can be chosen, one line each; of one choice everything.")
    options.add_argument("group", metavar="GROUP", nargs="?")
    options.add_argument("choice", metavar="CHOICE", nargs="?", help="explain this one")
    options.add_argument("--search", metavar="WORD", help="choices whose name or keys hold a word")
    options.add_argument("--config-dir", help="a folder of configs of your own")
    words, _ = trusted(arguments)  # as on the line of a run; nothing is built here
    given = options.parse_args(words)
    folders = config_folders(given.config_dir)
    if given.search is not None and given.group:
        reason = "searches everything: leave out GROUP and CHOICE"
        raise InputError(reason, "--search", given.search)
    if given.search:
        found = found_by(folders, given.search)
        if not found:
            raise InputError(
                "is in no choice and no key; see: fedexp list", "--search", given.search
            )
        lines = [f"{f'{group}={choice}':<36}  {said}" for group, choice, said in found]
        answer(printable_lines("\n".join(lines)), lambda: _document(found))
    elif given.choice:
        _explain(folders, given.group, given.choice, given.config_dir and Path(given.config_dir))
    else:
        text, chosen = listing(folders, given.group), groups(folders)
        everything = [
            (group, choice, said)
            for group, choices in chosen.items()
            for choice, said in choices.items()
            if given.group in (None, group)
        ]
        answer(text, lambda: _document(everything))
    return EXIT_OK


def _explain(folders: list[Path], group: str, choice: str, named: Path | None) -> None:
    """At once what the choice is; then what goes with it, which takes some seconds to try."""
    explained = explain(folders, group, choice)
    document = {"schema": "choice/1", **asdict(explained)}
    answer(f"{printable_lines(as_text(explained))}\n", lambda: document)
    sys.stdout.flush()
    from fedexp.commands import combinations

    pairs = combinations.combinations(folders, group, choice, named)
    document["combinations"] = [asdict(pair) for pair in pairs]
    answer(printable_lines(combinations.as_text(pairs)), lambda: document)


def _document(found: Sequence[tuple[str, str, str]]) -> dict[str, Any]:
    return {
        "schema": "choices/1",
        "choices": [
            {"group": group, "choice": choice, "description": said} for group, choice, said in found
        ],
    }
