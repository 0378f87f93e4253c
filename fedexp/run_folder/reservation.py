"""A folder for one run: taken by making it or by locking it, never by looking whether it is there.

Between a look and the first file another process may have come. To make a folder, and to lock one,
either succeeds for one process alone.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain, count
from pathlib import Path

from fedexp.core.checks import InputError
from fedexp.core.files import locked


def refuse_occupied(folder: Path) -> None:
    """Raise InputError if `folder` holds a run."""
    if (folder / "config.yaml").exists() or (folder / "summary.json").exists():
        raise InputError(
            f"holds a run already; continue it with: fedexp resume {shlex.quote(str(folder))}",
            "hydra.run.dir",
            folder,
        )


@contextmanager
def reserved(folder: Path, or_the_next_number: bool) -> Iterator[Path]:
    """A folder that this process alone has, until the end of the context.

    Folders that nothing was written to are removed again.

    Args:
        folder: the one that is wanted; made where it is missing.
        or_the_next_number: where it is there already, make FOLDER-2, FOLDER-3, ... instead.

    Raises:
        InputError: `folder` holds a run, or another process is at it.
    """
    made = [path for path in folder.parents if not path.exists()]
    folder.parent.mkdir(parents=True, exist_ok=True)
    if or_the_next_number:
        folder = _make_the_next_free(folder)
    new = or_the_next_number or not folder.exists()
    folder.mkdir(exist_ok=True)
    with locked(folder):
        try:
            refuse_occupied(folder)
            yield folder
        finally:
            if new and [path.name for path in folder.iterdir()] == [".lock"]:
                _remove(folder, made)


def _make_the_next_free(folder: Path) -> Path:
    """The first of FOLDER, FOLDER-2, FOLDER-3, ... that was not there, and is now."""
    candidates = chain([folder], (folder.with_name(f"{folder.name}-{k}") for k in count(2)))
    for candidate in candidates:
        with suppress(FileExistsError):
            candidate.mkdir()
            return candidate
    raise AssertionError("numbers do not end")


def _remove(folder: Path, above: list[Path]) -> None:
    with suppress(OSError):  # another process works above, or the system keeps what is locked
        (folder / ".lock").unlink()
        for path in (folder, *above):
            path.rmdir()
