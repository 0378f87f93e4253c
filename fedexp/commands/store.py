"""`fedexp store [FOLDER] [--empty]`: what sweeps have kept, and its end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedexp.commands.answers import answer
from fedexp.commands.arguments import EXIT_OK, parser
from fedexp.core.checks import refuse_no_folder
from fedexp.core.text import number_of

if TYPE_CHECKING:
    from fedexp.store.entries import Entry


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
    if given.folder or folder.exists():  # ours is made with its first entry
        refuse_no_folder(folder, "store")
    store = Store(folder)
    if given.empty:
        removed = store.empty()
        answer(
            f"{folder}: {number_of(removed, 'entry', 'entries')} removed",
            lambda: _document(folder, []),
        )
        return EXIT_OK
    entries = list(store.entries())
    lines = [f"{_made(entry)}  {entry.size / 1e6:9,.1f} MB  {entry.what}" for entry in entries]
    total = sum(entry.size for entry in entries) / 1e6
    how_many = number_of(len(entries), "entry", "entries")
    whole = f"{how_many}, {total:,.1f} MB (shared with runs that are there)"
    text = "\n".join([*lines, f"{folder}: {whole if entries else 'no entries'}"])
    answer(text, lambda: _document(folder, entries))
    return EXIT_OK


def _made(entry: Entry) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.made))


def _document(folder: Path, entries: Sequence[Entry]) -> dict[str, Any]:
    return {
        "schema": "store/1",
        "folder": str(folder),
        "entries": [
            {"what": entry.what, "bytes": entry.size, "made": entry.made} for entry in entries
        ],
    }
