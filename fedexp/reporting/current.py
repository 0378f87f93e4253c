"""Whether the report of a run is what would be written now, so that nobody need draw it again.

A report leaves a stamp beside it, `.drawn.json`: what it was made of, by which code, and the files
written with their sizes. What it was made of is the name, size and time of every file of the
record. A report that was touched, cut off or removed, or whose run went on, is drawn again; one
that another version drew is still true to its run, and is counted instead: to draw a sweep of a
thousand anew takes the better part of an hour, for a table that takes seconds.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path

from fedexp.core.checks import InputError
from fedexp.core.documents import read_json_object
from fedexp.core.files import to_json, write_atomically

STAMP = ".drawn.json"
_OF_THE_RECORD = (
    *("config.yaml", "summary.json", "partition.json", "metrics.csv", "metrics.jsonl"),
    *("clients.bin", "confusion_matrix.csv", "timing.jsonl", "verdict.json", "origin.json"),
    *("thresholds.csv", "updates/index.csv"),
)
_FOLDERS_OF_THE_RECORD = ("leakage",)
_READS_AND_DRAWS = ("reporting", "run_folder")  # the code that decides what a report looks like
_LIBRARIES = ("matplotlib", "pandas")


def stamp_of(run: Path) -> str:
    """A digest of what the report of a run is made of."""
    digest = hashlib.sha256()
    for path in _record(run):
        try:
            about = path.stat()
        except FileNotFoundError:
            continue
        name = path.relative_to(run).as_posix()
        digest.update(f"{name} {about.st_size} {about.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def leave_stamp(folder: Path, stamp: str, files: Iterable[Path]) -> None:
    """Say in `folder` that the report there has the stamp, and which files it wrote."""
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
    write_atomically(
        folder / STAMP, to_json({"of": stamp, "by": _code(), "files": sizes}), durable=False
    )


def is_current(folder: Path, stamp: str) -> bool:
    """Whether a report with this stamp lies in `folder`, whole."""
    left = _left(folder)
    files = left.get("files")
    if left.get("of") != stamp or not isinstance(files, dict) or not files:
        return False
    return all(_has_size(folder / name, size) for name, size in files.items())


def is_by_this_code(folder: Path) -> bool:
    """Whether the report in `folder` was drawn by the code and libraries that run now."""
    return _left(folder).get("by") == _code()


def _left(folder: Path) -> dict[str, object]:
    try:
        return read_json_object(folder / STAMP) if (folder / STAMP).is_file() else {}
    except InputError:
        return {}


def _has_size(path: Path, size: object) -> bool:
    try:
        return path.stat().st_size == size
    except (OSError, ValueError):  # a name may be anything
        return False


def _record(run: Path) -> Iterator[Path]:
    yield from (run / name for name in _OF_THE_RECORD)
    for name in _FOLDERS_OF_THE_RECORD:
        for folder, folders, files in os.walk(run / name):
            folders.sort()
            yield from (Path(folder, file) for file in sorted(files))


@cache
def _code() -> str:
    """A digest of the code and libraries that a report depends on."""
    package = Path(__file__).parent.parent
    digest = hashlib.sha256(" ".join(map(version, _LIBRARIES)).encode())
    for name in _READS_AND_DRAWS:
        for path in sorted((package / name).rglob("*")):
            if path.suffix in (".py", ".j2"):
                digest.update(path.read_bytes())
    return digest.hexdigest()
