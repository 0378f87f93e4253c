"""A folder of entries, each found by a key of all that decides its bits; believed no further.

    KIND-KEY/               files of a run's folder, a shadow, a role's answers
    KIND-KEY/entry.json     what it is, and the SHA-256 of every file

An entry is made beside its place, flushed and renamed, so that it is whole or not there, whoever is
killed. It is never changed. A file whose SHA-256 is another makes the whole entry useless: it is
removed, and what it held is computed again. Nothing in an entry is run: its files are those of a
run's folder, and are read by its readers.

Files are hard links where the disk has them, so that an entry takes no room as long as the run is
there. Who grows a file of a run makes a copy of a linked one first (`not_through_links`).
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, final

from filelock import FileLock

from fedexp.core.checks import InputError
from fedexp.core.documents import read_json_object, read_regular
from fedexp.core.files import flush_folder, to_json, write_atomically

FORMAT = "fedexp-store-1"
NOTE = "entry.json"
NAME = re.compile(r"[a-z]+-[0-9a-f]{32}")  # of an entry; other folders are somebody's own
LARGEST = 2**36  # bytes of a file
LEFT_OVER = 3600.0  # seconds after which nobody is making an entry any more

log = logging.getLogger("fedexp")


@final
@dataclass(frozen=True)
class Entry:
    """One entry, for a list of them."""

    path: Path
    what: str  # in words
    size: int  # bytes
    made: float  # seconds since 1970


class Kept(Protocol):
    """Where results are looked for and left."""

    def take(self, kind: str, key: str, into: Path) -> bool:
        """Copy an entry's files into a folder; False where there is none, or none that is sound."""

    def leave(self, kind: str, key: str, what: str, fill: Callable[[Path], None]) -> None:
        """Make an entry of what `fill` puts into the folder that it is handed, if there is none."""


@final
@dataclass(frozen=True)
class Nowhere:
    """Keeps nothing, and has nothing."""

    def take(self, kind: str, key: str, into: Path) -> bool:
        """Nothing is there."""
        return False

    def leave(self, kind: str, key: str, what: str, fill: Callable[[Path], None]) -> None:
        """Nothing is kept."""


@final
@dataclass(frozen=True)
class Store:
    """Entries in a folder, which is made with the first. Several processes may use it at once.

    A store that cannot be read or written, or is full, costs no run: it is said in the log.

    Args:
        folder: what else lies in it is left alone.
    """

    folder: Path

    def take(self, kind: str, key: str, into: Path) -> bool:
        """Copy an entry's files into a folder; False where there is none, or none that is sound."""
        entry = self._place(kind, key)
        if not entry.is_dir():
            return False
        contents: dict[str, bytes] = {}  # all of them before any is written
        try:
            for name, digest in _files(entry, kind, key).items():
                contents[name] = read_regular(entry / name, LARGEST)
                if hashlib.sha256(contents[name]).hexdigest() != digest:
                    raise ValueError(f"{name} does not have the SHA-256 that was noted")
        except (InputError, OSError, ValueError) as error:
            log.warning("store: %s is broken (%s); it is computed again", entry.name, error)
            self._drop(entry)
            return False
        for name, content in contents.items():
            path = into / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content)
        return True

    def leave(self, kind: str, key: str, what: str, fill: Callable[[Path], None]) -> None:
        """Make an entry of what `fill` puts into the folder that it is handed, if there is none."""
        entry = self._place(kind, key)
        if entry.is_dir():
            return
        beside = self.folder / f".{os.urandom(8).hex()}.tmp"
        try:
            beside.mkdir(parents=True)
            fill(beside)
            note = {
                "format": FORMAT,
                "kind": kind,
                "key": key,
                "what": what,
                "made": time.time(),
                "files": {name: _sha256(beside / name) for name in _names(beside)},
            }
            write_atomically(beside / NOTE, to_json(note, indent=1))
            with self._locked():
                if not entry.is_dir():
                    os.replace(beside, entry)
                    flush_folder(self.folder)
        except OSError as error:
            log.debug("store: %s could not be kept: %s", what, error)
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def entries(self) -> Iterator[Entry]:
        """All of them, the newest first; one that cannot be read is said to be so."""
        found = []
        for path in self.folder.glob("*-*"):
            if not NAME.fullmatch(path.name) or not path.is_dir() or path.is_symlink():
                continue
            size = sum(p.lstat().st_size for p in path.rglob("*") if not p.is_dir())
            try:
                note = read_json_object(path / NOTE)
                found.append(Entry(path, str(note["what"]), size, float(note["made"])))
            except (InputError, OSError, KeyError, TypeError, ValueError):
                found.append(Entry(path, "cannot be read", size, path.lstat().st_mtime))
        yield from sorted(found, key=lambda entry: -entry.made)

    def empty(self) -> int:
        """Remove every entry, and what killed processes have left; how many entries there were."""
        if not self.folder.is_dir():
            return 0
        with self._locked():
            entries = list(self.entries())
            for entry in entries:
                shutil.rmtree(entry.path)
            for path in self.folder.glob(".*.tmp"):
                if time.time() - path.lstat().st_mtime > LEFT_OVER:
                    shutil.rmtree(path, ignore_errors=True)
        return len(entries)

    def _place(self, kind: str, key: str) -> Path:
        return self.folder / f"{kind}-{key[:32]}"

    def _drop(self, entry: Path) -> None:
        with suppress(OSError), self._locked():
            gone = self.folder / f".{os.urandom(8).hex()}.tmp"
            os.replace(entry, gone)
            shutil.rmtree(gone, ignore_errors=True)

    def _locked(self) -> FileLock:
        return FileLock(self.folder / ".lock", timeout=60)


def link(source: Path, place: Path) -> None:
    """A second name for a file that is never written to in place; a copy where there is no link."""
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, place)
    except OSError:
        write_atomically(place, source.read_bytes())


def _files(entry: Path, kind: str, key: str) -> Mapping[str, Any]:
    """What an entry says of its files; ValueError where it is not of this key."""
    note = read_json_object(entry / NOTE)
    if (note.get("format"), note.get("kind"), note.get("key")) != (FORMAT, kind, key):
        raise ValueError("it is of another key")
    files = note.get("files")
    if not isinstance(files, dict) or not files:
        raise ValueError("it names no files")
    for name in files:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name:
            raise ValueError(f"{name!r} is no file of it")
    return files


def _names(folder: Path) -> list[str]:
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(found)


def _sha256(path: Path) -> str:
    return hashlib.sha256(read_regular(path, LARGEST)).hexdigest()
