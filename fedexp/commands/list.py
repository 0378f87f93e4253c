"""`fedexp list`: what can be chosen."""

from __future__ import annotations

from collections.abc import Sequence

from fedexp.commands.arguments import EXIT_OK, parser
from fedexp.config.catalogue import listing
from fedexp.config.folders import config_folders


def main(arguments: Sequence[str]) -> int:
    """The command; its exit code."""
    options = parser("list", "What can be chosen, one line each.")
    options.add_argument("group", metavar="GROUP", nargs="?")
    print(listing(config_folders(), options.parse_args(arguments).group))
    return EXIT_OK
