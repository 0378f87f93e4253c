"""A file that grows with the rounds, without waiting for the disk every time.

What is appended reaches the system at once, so that it outlives the process, and the disk when the
system likes. So that it outlives a loss of power too, a checkpoint, which is flushed, carries what
the disk is not known to have: from where on, and the bytes. Whatever such a loss left of the file
behind that point is replaced by them. Once they are many, the file is flushed and they start anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import final

from fedexp.core.files import append, flush, not_through_links, write_atomically

CARRIED = 2**16  # bytes: beyond these a flush is cheaper


@final
@dataclass(frozen=True)
class Carried:
    """The end of a file."""

    start: int  # bytes before it, which the disk has
    end: bytes

    def fits(self, path: Path) -> bool:
        """Whether the file at `path` has what comes before; nothing does if nothing is needed."""
        return not self.start or (path.is_file() and path.stat().st_size >= self.start)


@final
class Growing:
    """One such file of a run.

    Args:
        path: where it lies; its folder exists.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._start, self._end = 0, bytearray()

    def begin(self, content: bytes = b"", durable: bool = False) -> None:
        """Have it hold `content` and nothing else; `durable` as for `write_atomically`."""
        write_atomically(self.path, content, durable)
        self._start = len(content) if durable else 0
        self._end = bytearray(b"" if durable else content)

    def append(self, content: bytes) -> None:
        """Whole lines or frames, or, on a full disk, nothing."""
        append(self.path, content, durable=False)
        self._end += content

    def carried(self) -> Carried:
        """What a checkpoint of this moment has to carry."""
        if len(self._end) > CARRIED:
            self.flush()
        return Carried(self._start, bytes(self._end))

    def flush(self) -> None:
        """Let all of it survive a loss of power."""
        flush(self.path)
        self._start += len(self._end)
        self._end.clear()

    def restore(self, carried: Carried) -> None:
        """Have it hold what it held when that was carried (see `Carried.fits`)."""
        if not carried.start:
            self.begin(carried.end)
            return
        with open(self.path, "rb+", opener=not_through_links) as file:
            file.seek(carried.start)
            if file.read() != carried.end:
                file.truncate(carried.start)  # first: a kill leaves what comes before
                file.seek(carried.start)
                file.write(carried.end)
        self._start, self._end = carried.start, bytearray(carried.end)
