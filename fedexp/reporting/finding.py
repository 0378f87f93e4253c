"""Where runs lie: which folders are runs, among and below those that somebody named."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from fedexp.core.checks import InputError, refuse_no_folder

MARKS = ("summary.json", "config.yaml", "metrics.jsonl", "metrics.csv")
"""Files of which every run leaves one."""


def is_run(path: Path) -> bool:
    """Whether `path` is a run folder: one of the files that every run leaves is there."""
    return any((path / name).is_file() for name in MARKS)


def find_runs(paths: Iterable[str | Path]) -> list[Path]:
    """The run folders among and below `paths`, each once, in natural order (2 before 10).

    Raises:
        InputError: a path is no folder, or no run lies there.
    """
    found: dict[Path, Path] = {}
    for path in map(Path, paths):
        refuse_no_folder(path, "path")
        below = list(_runs_below(path))
        if not below:
            raise InputError(f"no run lies here: no folder with {' or '.join(MARKS)}", "path", path)
        for run in below:
            found.setdefault(run.resolve(), run)
    if not found:
        raise InputError("name at least one run folder or sweep folder", "path", "")
    return sorted(found.values(), key=_natural)


def links_not_followed(paths: Iterable[str | Path]) -> list[Path]:
    """Links below `paths` that runs may lie behind and that `find_runs` has passed over.

    A link to a run is followed; one to any other folder could lead all over the disk, and one whose
    target is missing may belong to a disk that is not there.
    """
    found = []
    for path in map(Path, paths):
        for folder, names, files in _walk(path):
            links = [folder / name for name in (*names, *files) if (folder / name).is_symlink()]
            found += [link for link in links if not link.is_file() and not is_run(link)]
    return sorted(found)


def _runs_below(path: Path) -> Iterator[Path]:
    for folder, names, _ in _walk(path):
        if is_run(folder):
            yield folder
        yield from (link for name in names if is_run(link := folder / name) and link.is_symlink())


def _walk(path: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Folders with what lies in them, links included; neither links nor runs are entered."""
    for folder, names, files in os.walk(path):
        names[:] = sorted(name for name in names if not name.startswith("."))
        if is_run(Path(folder)):
            names.clear()
            files.clear()
        yield Path(folder), names, files


def _natural(path: Path) -> list[tuple[float, str]]:
    pieces = re.findall(r"\d+|\D+", str(path))
    return [(int(piece) if piece.isdecimal() else math.inf, piece) for piece in pieces]
