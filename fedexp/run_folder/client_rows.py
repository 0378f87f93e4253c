"""What was measured of single clients, column by column: `clients.bin`, one frame a round.

    frame  = "fxc1", bytes of the body, its CRC-32 (little-endian unsigned 32-bit); the body
    body   = zlib of: bytes of the head (32-bit), the head, the columns
    head   = JSON {"round": r, "tables": [{"n": n, "columns": [[scope, metric], ...]}, ...]}
    columns of a table: client numbers [n] int64, then each column's values [n] float64, NaN where
    there is none; every one with the first bytes of all numbers first, which zlib likes

A table is of clients of whom the same was measured: those of a cohort, as a rule. The file grows by
whole frames, and a frame that a kill has cut off is as if it were not there.

No library of tables: what reads and writes this is a page, costs no start-up and no memory, and the
file can grow (docs/decisions/019).
"""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np

from fedexp.core.checks import InputError
from fedexp.core.documents import TABLE_BYTES, parse_json, read_regular
from fedexp.core.metric import Metric

FILE = "clients.bin"

_HEAD = struct.Struct("<4sII")
_MAGIC = b"fxc1"
_MOST = 2**29  # bytes of a body: a stranger's few may unfold to any number
_A_CLIENT = re.compile(r"-?[1-9][0-9]{0,17}|0")
"""Written as whole numbers are: negative ones stand for mixtures of clients."""


@final
@dataclass(frozen=True)
class Table:
    """What was measured of some clients in a round."""

    round: int
    clients: np.ndarray  # [n] int64
    columns: Mapping[tuple[str, str], np.ndarray]  # (scope, metric) -> [n] float64

    def rows(self) -> Iterator[Metric]:
        """One number a row, NaN for one that is not finite."""
        for (scope, metric), values in self.columns.items():
            for client, value in zip(self.clients.tolist(), values.tolist(), strict=True):
                yield Metric(self.round, scope, str(client), metric, value)


def is_of_a_client(row: Metric) -> bool:
    """Whether a row is about one client, and not about all of them together."""
    return _A_CLIENT.fullmatch(row.client) is not None


def frame(round: int, rows: Sequence[Metric]) -> bytes:
    """The rows of a round, each about a client, as they are appended; nothing where there is none.

    >>> (table,) = tables_in(frame(1, [Metric(1, "train", "7", "loss", 0.5)]))
    >>> table.clients.tolist(), {k: v.tolist() for k, v in table.columns.items()}
    ([7], {('train', 'loss'): [0.5]})
    """
    if not rows:
        return b""
    columns: dict[tuple[str, str], tuple[list[int], list[float]]] = {}
    for row in rows:
        clients, values = columns.setdefault((row.scope, row.metric), ([], []))
        clients.append(int(row.client))
        values.append(row.value)
    tables: dict[tuple[int, ...], dict[tuple[str, str], list[float]]] = {}
    for name, (clients, values) in columns.items():
        tables.setdefault(tuple(clients), {})[name] = values
    head = {
        "round": round,
        "tables": [{"n": len(c), "columns": list(columns)} for c, columns in tables.items()],
    }
    text = json.dumps(head).encode()
    pieces = [struct.pack("<I", len(text)), text]
    for of, named in tables.items():
        pieces.append(_shuffled(np.array(of, dtype="<i8")))
        for values in named.values():
            numbers = np.array(values, dtype="<f8")
            pieces.append(_shuffled(np.where(np.isfinite(numbers), numbers, np.nan)))
    body = zlib.compress(b"".join(pieces), 6)
    return _HEAD.pack(_MAGIC, len(body), zlib.crc32(body)) + body


def tables_in(content: bytes, complete: bool = False) -> Iterator[Table]:
    """The tables of all frames, up to one that was cut off.

    Raises:
        ValueError: a frame is broken; or cut off, where nobody writes any more (`complete`).
    """
    at = 0
    while at + _HEAD.size <= len(content):
        magic, size, crc = _HEAD.unpack_from(content, at)
        start = at + _HEAD.size
        if magic != _MAGIC:
            raise ValueError(f"no frame begins at byte {at:,}")
        if start + size > len(content):
            break
        body = content[start : start + size]
        if zlib.crc32(body) != crc:
            raise ValueError(f"the frame at byte {at:,} does not have its checksum")
        yield from _tables(body)
        at = start + size
    if complete and at < len(content):
        raise ValueError(f"the frame at byte {at:,} is cut off")


def read_tables(folder: Path, complete: bool = False) -> list[Table]:
    """The tables of a run folder, in the order of their rounds; none where there is no such file.

    Args:
        folder: of the run.
        complete: whether the run is over, so that nothing may be half written.

    Raises:
        InputError: it is broken.
    """
    path = folder / FILE
    if not path.exists():
        return []
    try:
        return list(tables_in(read_regular(path, TABLE_BYTES), complete))
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"is not a record of clients ({error})", "file", path) from None


def _tables(body: bytes) -> Iterator[Table]:
    unpacked = zlib.decompressobj()
    try:
        content = unpacked.decompress(body, _MOST)
        if not unpacked.eof:
            raise ValueError("a frame is longer than any that is written")
        (length,) = struct.unpack_from("<I", content)
        round, shapes = _checked(parse_json(content[4 : 4 + length].decode()))
        at = 4 + length
        for n, names in shapes:
            clients = _array(content, at, n, "<i8")
            at += 8 * n
            values = {}
            for name in names:
                values[name] = _array(content, at, n, "<f8")
                at += 8 * n
            yield Table(round, clients, values)
    except (zlib.error, struct.error) as error:
        raise ValueError(str(error)) from None


def _checked(head: Any) -> tuple[int, list[tuple[int, list[tuple[str, str]]]]]:
    """Round, and for every table its length and the names of its columns."""
    try:
        tables = [(t["n"], [(s, m) for s, m in t["columns"]]) for t in head["tables"]]
        round = head["round"]
    except (KeyError, TypeError) as error:
        raise ValueError(f"a frame's head is none ({error})") from None
    words = [word for _, names in tables for name in names for word in name]
    numbers = [round, *(n for n, _ in tables)]
    if not all(type(n) is int and 0 <= n < 2**63 for n in numbers):
        raise ValueError("a frame's head has other numbers")
    if not all(isinstance(word, str) and word.isprintable() for word in words):
        raise ValueError("a word in it is none")
    return round, tables


def _shuffled(numbers: np.ndarray) -> bytes:
    """The first bytes of all numbers, then the second ones, ..."""
    return numbers.view(np.uint8).reshape(-1, numbers.itemsize).T.tobytes()


def _array(content: bytes, at: int, n: int, kind: str) -> np.ndarray:
    if at + 8 * n > len(content):
        raise ValueError("a frame is shorter than its head says")
    parts = np.frombuffer(content, np.uint8, 8 * n, at).reshape(8, n)
    return np.ascontiguousarray(parts.T).view(kind).reshape(n)
