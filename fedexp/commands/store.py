"""`fedexp store [FOLDER] [--empty]`: what sweeps have kept, and its end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from fedexp.commands.arguments import EXIT_OK, parser
from fedexp.core.checks import InputError


def main(arguments: Sequence[str]) -> int:
    """The command; its exit code."""
    options = parser("store", "List what sweeps have kept, so that it is not computed again.")
    options.add_argument(
        "folder", metavar="FOLDER", nargs="?", type=Path, help="by default outputs/store"
    )
    options.add_argument("--empty", action="store_true", help="remove it all")
    given = options.parse_args(arguments)
    from fedexp.store.entries import Store
    from fedexp.store.use import BESIDE_THE_RUNS

    folder = given.folder or BESIDE_THE_RUNS
    if folder.exists() and not folder.is_dir():
        raise InputError("is a file, not a folder", "store", folder)
    store = Store(folder)
    if given.empty:
        print(f"{folder}: {store.empty()} entries removed")
        return EXIT_OK
    entries = list(store.entries())
    if not entries:
        print(f"{folder}: empty")
        return EXIT_OK
    for entry in entries:
        made = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.made))
        print(f"{made}  {entry.size / 1e6:9,.1f} MB  {entry.what}")
    total = sum(entry.size for entry in entries) / 1e6
    print(f"{folder}: {len(entries)} entries, {total:,.1f} MB (shared with runs that are there)")
    return EXIT_OK
