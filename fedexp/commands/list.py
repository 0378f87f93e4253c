"""`fedexp list`: what can be chosen."""

from __future__ import annotations

from collections.abc import Sequence

from fedexp.commands.arguments import EXIT_OK, parser, trusted
from fedexp.config.catalogue import listing
from fedexp.config.folders import config_folders


def main(arguments: Sequence[str]) -> int:
    """The command; its exit code."""
    options = parser("list", "What can be chosen, one line each.")
    options.add_argument("group", metavar="GROUP", nargs="?")
    options.add_argument("--config-dir", help="a folder of configs of your own")
    words, _ = trusted(arguments)  # as on the line of a run; nothing is built here
    given = options.parse_args(words)
    print(listing(config_folders(given.config_dir), given.group))
    return EXIT_OK
