"""Before anything is written to a folder that somebody else may have filled: what lies there?

A link in a run folder, `plots/` or `fedexp.log`, can lead to any file of the user's, and a pipe
waits for ever. Writers replace files instead of following links (`fedexp.core.files`); folders on
the way are looked at here, once, where a command takes a folder in hand.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from fedexp.core.checks import InputError


def refuse_ways_out(folder: Path, below: bool = True) -> None:
    """Raise InputError where `folder` holds a link that leads out of it, or no file at all.

    The folder itself may be a link: its user has named it. Links to what lies in the folder stay;
    some trackers make them.

    Args:
        folder: that is to be written to; it need not exist.
        below: look into its folders too; else only at what is neither a folder nor a link to one.
    """
    inside = os.path.realpath(folder)
    for entry in _entries(folder, below):
        if entry.is_symlink():
            target = os.path.realpath(entry.path)
            if Path(target).is_relative_to(inside) or (not below and entry.is_dir()):
                continue
            raise InputError(
                f"is a link to {target}: links out of a folder are not written through; put what "
                "it leads to in its place, or take it away",
                "file",
                entry.path,
            )
        if not entry.is_file() and not entry.is_dir():
            raise InputError(f"is a {_kind(entry)}, no file; take it away", "file", entry.path)


def _entries(folder: str | Path, below: bool) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
    except OSError:  # it is not there, or may not be read: then it is not written to either
        return
    for entry in entries:
        yield entry
        if below and entry.is_dir(follow_symlinks=False):
            yield from _entries(entry.path, below)


def _kind(entry: os.DirEntry[str]) -> str:
    mode = entry.stat(follow_symlinks=False).st_mode
    names = {stat.S_ISFIFO: "pipe", stat.S_ISSOCK: "socket"}
    return next((name for is_a, name in names.items() if is_a(mode)), "device")
