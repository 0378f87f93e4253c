"""Writing files that are whole at any moment, and reading what a crash may have left."""

from __future__ import annotations

import json
import math
import os
import re
import stat
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fedexp.core.checks import InputError
from fedexp.core.documents import TABLE_BYTES, parse_json, read_text
from fedexp.core.links import refuse_ways_out

_LEFTOVER = re.compile(r"\.[0-9a-f]{16}\.tmp")  # see `write_atomically`


class AtWork(InputError):
    """Another process works in a folder, and this one keeps out."""


def write_atomically(
    path: Path, content: bytes, durable: bool = True, also: Sequence[Path] = ()
) -> None:
    """Replace a file so that a reader, or a crash, sees the old one or the new one, never half.

    A link in its place is replaced, not followed.

    Args:
        path: the file.
        content: of it.
        durable: be sure, before going on, that it survives a loss of power; a file that is not
            may be old, empty or gone after one, and somebody must be able to write it again.
        also: more names in the same folder for the same file; in place before `path` is.
    """
    # A name that nobody could have put a link under; "x" follows none either.
    beside = _beside(path)
    try:
        with open(beside, "xb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        for name in also:
            _name_too(beside, name)
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    if durable:
        flush_folder(path.parent)


def _beside(path: Path) -> Path:
    return path.with_name(f".{os.urandom(8).hex()}.tmp")


def _name_too(file: Path, name: Path) -> None:
    """Have `name` be the same file; a copy of it on a disk whose files have one name each."""
    second = _beside(name)
    try:
        os.link(file, second)
    except OSError:
        write_atomically(name, file.read_bytes())
        return
    try:
        os.replace(second, name)
    except BaseException:
        second.unlink(missing_ok=True)
        raise


def flush(path: Path) -> None:
    """Let what a file holds now survive a loss of power; nothing where there is no such file."""
    if path.is_file():
        with open(path, "rb+") as file:
            os.fsync(file.fileno())


def flush_folder(folder: Path) -> None:
    """Let the new name of a file survive a loss of power."""
    if sys.platform == "win32":  # which opens no folders, and writes names with the file
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def append(path: Path, content: bytes, durable: bool = True) -> None:
    """Append whole lines, or, on a full disk, nothing; `durable` as for `write_atomically`."""
    # Unbuffered: a buffer that could not be written would be tried again on closing the file.
    with open(path, "ab", buffering=0, opener=not_through_links) as file:
        before = file.tell()
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[file.write(rest) :]
            if durable:
                os.fsync(file.fileno())
        except OSError:
            file.truncate(before)
            raise


def not_through_links(path: str, flags: int) -> int:
    """For `open(..., opener=)`: a file that is to grow, and nobody else's.

    A symbolic link is an OSError. A file that has a second name elsewhere, as in a backup made of
    hard links, becomes a copy first, which the other name does not see.
    """
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)  # a pipe does not wait
    descriptor = os.open(path, flags, 0o666)
    about = os.fstat(descriptor)
    if stat.S_ISREG(about.st_mode) and about.st_nlink == 1:
        return descriptor
    os.close(descriptor)
    if not stat.S_ISREG(about.st_mode):
        raise InputError("is no file", "file", path)
    write_atomically(Path(path), Path(path).read_bytes())
    return os.open(path, flags, 0o666)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a file, one a line, up to the first that is broken."""
    lines: list[dict[str, Any]] = []
    text = read_text(path, TABLE_BYTES) if path.exists() else ""
    for line in text.splitlines():
        try:
            document = parse_json(line)
        except ValueError:
            break  # the line in which the process was killed
        if not isinstance(document, dict):
            break
        lines.append(document)
    return lines


def to_json(document: Mapping[str, Any], indent: int | None = None) -> bytes:
    """JSON in UTF-8 with a line end; NaN and infinities become null, which JSON can say."""
    return (json.dumps(plain(document), indent=indent, allow_nan=False) + "\n").encode()


def plain(value: Any) -> Any:
    """The value with NaN and infinities as None, all the way down."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a second process out of a run folder; a dead process lets go by itself.

    What such a one has left half-written is removed.

    Raises:
        AtWork: another process is in it.
        InputError: it holds a link that leads out of it, or something that is no file.
    """
    refuse_ways_out(folder)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        reason = "another process is writing to this run folder"
        raise AtWork(reason, "RUN_DIR", folder) from None
    try:
        remove_leftovers(folder.rglob(".*.tmp"))
        yield
    finally:
        lock.release()


def remove_leftovers(paths: Iterable[Path], older_than: float = 0.0) -> None:
    """Remove, of `paths`, what `write_atomically` was killed over, so many seconds ago or more."""
    for path in paths:
        if _LEFTOVER.fullmatch(path.name):
            with suppress(FileNotFoundError):
                if time.time() - path.lstat().st_mtime >= older_than:
                    path.unlink()


def somebody_is_at(folder: Path) -> bool:
    """Whether a process works in a run folder right now."""
    try:
        with locked(folder):
            return False
    except AtWork:
        return True
    except InputError:  # nobody would work in such a folder
        return False
