"""Images decoded once, and kept as one file of bytes that is mapped and never read whole.

In the folder lie, named by what decides their content:

    NAME.files.json     of a list of files (name, size, time) and a way to decode: the hash of each
    SET.set.json        of the hashes of a set of files and a way to decode: what each of them is
    SET-ORDER.u8        the pixels of those that can be decoded, `[n, C, H, W]`, in one order

A file that was only moved or renamed is hashed again and not decoded again; another order is copied
from one that is there. Each is written beside its name and renamed when it is whole, by one process
at a time; who finds it whole needs no lock.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from filelock import FileLock

from fedexp.core.checks import InputError
from fedexp.core.cores import available_cores
from fedexp.core.documents import parse_json
from fedexp.core.files import remove_leftovers, write_atomically
from fedexp.data.decode import Decoding, Picture, Unreadable

VERSION = 1  # of decoding: another one decodes anew
SETTLED = 0.1  # seconds after its last change until a file's time tells whether it has changed
FORGOTTEN = 24 * 3600.0  # seconds after which a half-written file is nobody's
AT_ONCE = 2**24  # bytes copied together


@final
@dataclass(frozen=True)
class Known:
    """What was found out about a list of files."""

    key: str  # of the set of files and the way they are decoded
    hashes: tuple[str, ...]  # [n]
    pictures: tuple[Picture | None, ...]  # [n], None: cannot be decoded
    reasons: tuple[str, ...]  # [n], why not; "" where it can


@final
@dataclass(frozen=True)
class PixelCache:
    """Decoded images in a folder.

    Args:
        folder: that may be written to.
        decoding: how files become pixels.
    """

    folder: Path
    decoding: Decoding

    def known(self, root: Path, files: Sequence[str]) -> Known:
        """What each of `files` below `root` is; they are read unless nothing has changed."""
        abouts = [_about(root, file) for file in files]
        name = _hash(["files", self._how, str(root), files, abouts])
        note = self.folder / f"{name}.files.json"
        if (found := self._noted(note, files, abouts)) is not None:
            return found
        with self._alone(name):
            if (found := self._noted(note, files, abouts)) is not None:
                return found
            found = self._read(root, files)
            _write(note, {"set": found.key, "hashes": found.hashes})
        return found

    def pixels(self, known: Known, root: Path, files: Sequence[str], rows: np.ndarray) -> Path:
        """The file of pixels `[len(rows), C, H, W]` of `files` at `rows`, in that order."""
        wanted = [known.hashes[row] for row in rows.tolist()]
        place = self.folder / f"{known.key}-{_hash(wanted)}.u8"
        if self._is_whole(place, len(wanted)):
            return place
        with self._alone(known.key):
            if self._is_whole(place, len(wanted)):
                return place
            source = self._in_some_order(known)
            if source is None and self._read(root, files).key == known.key:  # it was deleted
                source = self._in_some_order(known)
            if source is None:
                raise InputError("has changed while it was read; start again", "path", root)
            position = {found: k for k, found in enumerate(_lines(source.with_suffix(".order")))}
            self._copied(source, place, [position[found] for found in wanted])
            write_atomically(place.with_suffix(".order"), "\n".join(wanted).encode())
            _delete_unordered(self.folder, known.key)
        return place

    @property
    def _how(self) -> list[Any]:
        return [VERSION, asdict(self.decoding)]

    @property
    def _row_bytes(self) -> int:
        return int(np.prod(self.decoding.shape))

    def _is_whole(self, place: Path, n: int) -> bool:
        try:
            return place.stat().st_size == n * self._row_bytes
        except OSError:
            return False

    def _noted(self, note: Path, files: Sequence[str], abouts: Sequence[Any]) -> Known | None:
        """What was found out before; None: nothing, or a file may have changed since."""
        try:
            written = note.stat().st_mtime
            document = parse_json(note.read_text())
            hashes, key = document["hashes"], document["set"]
            about = parse_json((self.folder / f"{key}.set.json").read_text())
            found = _known(key, hashes, about)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        newest = max((about[-1] for about in abouts), default=0) / 1e9
        if newest > written - SETTLED or len(hashes) != len(files):
            return None
        return found

    def _read(self, root: Path, files: Sequence[str]) -> Known:
        """Read, hash and decode every file; what can be decoded is kept, in the order of hashes."""
        remove_leftovers(self.folder.glob(".*.tmp"), FORGOTTEN)
        self._refuse_full_disk(len(files))
        hashes: list[str] = []
        about: dict[str, Any] = {}
        with _written(self.folder) as (half, out):
            order: list[str] = []
            for found, pixels, picture in self._each(root, files):
                hashes.append(found)
                if found in about:
                    continue
                about[found] = picture if isinstance(picture, str) else astuple(picture)
                if pixels is not None:
                    out.write(pixels)
                    order.append(found)
            out.close()
            key = _hash(["set", self._how, sorted(about)])
            whole = self.folder / f"{key}-unordered.u8"
            write_atomically(whole.with_suffix(".order"), "\n".join(order).encode())
            os.replace(half, whole)
        _write(self.folder / f"{key}.set.json", about)
        return _known(key, hashes, about)

    def _each(
        self, root: Path, files: Sequence[str]
    ) -> Iterator[tuple[str, bytes | None, Picture | str]]:
        """Hash, pixels, and what it is or why it cannot be decoded, of every file in turn."""
        from tqdm import tqdm

        def one(file: str) -> tuple[str, bytes | None, Picture | str]:
            try:
                content = (root / file).read_bytes()
            except OSError as error:
                return _hash(["unreadable", file]), None, f"cannot be read: {error.strerror}"
            found = hashlib.blake2b(content, digest_size=16).hexdigest()
            try:
                pixels, picture = self.decoding(content)
            except Unreadable as why:
                return found, None, str(why)
            return found, pixels.tobytes(), picture

        at_once = 256
        with ThreadPoolExecutor(available_cores()) as pool:
            bar = tqdm(total=len(files), desc="reading images", disable=None, leave=False)
            with bar:
                for start in range(0, len(files), at_once):  # a map would read all files ahead
                    block = files[start : start + at_once]
                    yield from pool.map(one, block)
                    bar.update(len(block))

    def _in_some_order(self, known: Known) -> Path | None:
        """A file with all that can be decoded; None where there is none."""
        there = {h for h, p in zip(known.hashes, known.pictures, strict=True) if p is not None}
        for place in sorted(self.folder.glob(f"{known.key}-*.u8")):
            order = _lines(place.with_suffix(".order"))
            if there <= set(order) and self._is_whole(place, len(order)):
                return place
        return None

    def _copied(self, source: Path, place: Path, rows: Sequence[int]) -> None:
        """The rows of `source` at `rows`, in that order, as `place`."""
        self._refuse_full_disk(len(rows))
        with _written(self.folder) as (half, out), open(source, "rb") as file:
            for row in rows:  # not mapped: the source is not to be in memory whole
                file.seek(row * self._row_bytes)
                out.write(file.read(self._row_bytes))
            out.close()
            os.replace(half, place)

    def _refuse_full_disk(self, n: int) -> None:
        needed, free = n * self._row_bytes, shutil.disk_usage(self.folder).free
        if needed > free:
            raise InputError(
                f"{n:,} decoded images need {needed / 1e9:.2f} GB in {self.folder}, and "
                f"{free / 1e9:.2f} GB are free there; FEDEXP_DATA_DIR names another folder"
            )

    @contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        """One process at a time, of those that would write the same."""
        with FileLock(self.folder / f"{name}.lock"):
            yield


def cache_folder(data_dir: Path) -> tuple[Path, str]:
    """Where decoded images are kept, made if need be, and a remark if that is a poor place.

    In the data folder; where that cannot be written to, in the user's cache; else in a folder of
    the user's own for temporary files.

    Raises:
        InputError: none of them can be written to.
    """
    from platformdirs import user_cache_path

    for place in (data_dir / "decoded", user_cache_path("fedexp") / "decoded"):
        if _can_be_written_to(place):
            return place, ""
    user = getattr(os, "getuid", lambda: "user")()
    place = Path(tempfile.gettempdir()) / f"fedexp-{user}"
    if not _can_be_written_to(place, mode=0o700):
        raise InputError(f"decoded images could be kept neither in {data_dir} nor in {place}")
    about = place.lstat()
    if hasattr(os, "getuid") and (about.st_uid != os.getuid() or about.st_mode & 0o22):
        raise InputError(f"{place} is not this user's alone; FEDEXP_DATA_DIR names another folder")
    return place, f"decoded images are kept in {place}, as {data_dir} cannot be written to"


def _can_be_written_to(place: Path, mode: int = 0o777) -> bool:
    try:
        place.mkdir(mode=mode, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=place):
            return not place.is_symlink()
    except OSError:
        return False


def _known(key: str, hashes: Iterable[str], about: dict[str, Any]) -> Known:
    found = [about[h] for h in hashes]
    return Known(
        key=key,
        hashes=tuple(hashes),
        pictures=tuple(None if isinstance(f, str) else Picture(*f) for f in found),
        reasons=tuple(f if isinstance(f, str) else "" for f in found),
    )


def _about(root: Path, file: str) -> tuple[int, int, int]:
    """Size and times (content, rights) of a file; of one that cannot be looked at, none."""
    try:
        about = os.stat(os.path.join(root, file))
    except OSError:
        return -1, 0, 0
    return about.st_size, about.st_mtime_ns, about.st_ctime_ns


@contextmanager
def _written(folder: Path) -> Iterator[tuple[Path, Any]]:
    """A new file beside the others, which is gone afterwards unless it was renamed."""
    half = folder / f".{os.urandom(8).hex()}.tmp"
    try:
        with open(half, "xb", buffering=AT_ONCE) as out:
            yield half, out
    finally:
        half.unlink(missing_ok=True)


def _write(place: Path, document: dict[str, Any]) -> None:
    write_atomically(place, json.dumps(document).encode())


def _lines(place: Path) -> list[str]:
    try:
        return place.read_text().split("\n")
    except OSError:
        return []


def _hash(document: Any) -> str:
    return hashlib.blake2b(json.dumps(document).encode(), digest_size=16).hexdigest()


def _delete_unordered(folder: Path, key: str) -> None:
    for place in folder.glob(f"{key}-unordered.*"):
        place.unlink(missing_ok=True)
