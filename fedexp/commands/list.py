"""`fedexp list`: what can be chosen."""

from __future__ import annotations

from collections.abc import Sequence

from fedexp.commands.arguments import EXIT_OK, parser, trusted
from fedexp.config.catalogue import listing
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
    if given.search:
        found = found_by(folders, given.search)
        if not found:
            raise InputError(
                "is in no choice and no key; see: fedexp list", "--search", given.search
            )
        print(printable_lines("\n".join(found)))
    elif given.choice:
        print(printable_lines(as_text(explain(folders, given.group, given.choice))))
    else:
        print(listing(folders, given.group))
    return EXIT_OK
