"""What a run has measured so far: the table of the figures of all, and the columns of clients.

    metrics.csv    rows about all clients together, as text
    clients.bin    rows about single clients, see `fedexp.run_folder.client_rows`

Runs of earlier versions have all rows in metrics.jsonl, and in metrics.csv once more.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, final

from fedexp.core.documents import TABLE_BYTES, read_text
from fedexp.core.files import read_lines
from fedexp.core.metric import Metric
from fedexp.run_folder.client_rows import Table, is_of_a_client, read_tables
from fedexp.run_folder.format import COLUMNS

OLD = "metrics.jsonl"


def as_csv(rows: Sequence[Metric], header: bool = False) -> bytes:
    """Lines of metrics.csv; a value that is not finite is left empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if header:
        writer.writerow(COLUMNS)
    writer.writerows(
        [r.round, r.scope, r.client, r.metric, repr(r.value) if math.isfinite(r.value) else ""]
        for r in rows
    )
    return text.getvalue().encode()


def shared_rows(folder: Path) -> list[Metric]:
    """The rows of metrics.csv up to the first that is broken; of an old run, all rows there are."""
    lines = _old(folder) if (folder / OLD).exists() else _new(folder / "metrics.csv")
    rows = []
    for line in lines:
        try:
            value = math.nan if line["value"] in (None, "") else float(line["value"])
            words = {name: line[name] for name in ("scope", "client", "metric")}
            row = Metric(round=int(line["round"]), value=value, **words)
        except (KeyError, TypeError, ValueError, OverflowError):
            break
        rows.append(row)
    return rows


def _old(folder: Path) -> Iterator[dict[str, Any]]:
    yield from read_lines(folder / OLD)


def _new(path: Path) -> Iterator[dict[str, Any]]:
    text = read_text(path, TABLE_BYTES) if path.exists() else ""
    whole = text[: text.rfind("\n") + 1]  # a kill may have left half a line
    with suppress(csv.Error):
        yield from csv.DictReader(io.StringIO(whole.replace("\0", "")))


@final
@dataclass(frozen=True)
class Recorded:
    """The rows of the first rounds of a run, from its files, whenever they are gone through.

    Args:
        folder: of the run.
        until: the last round.
        shared: the rows about all clients together.
    """

    folder: Path
    until: int
    shared: Sequence[Metric]

    def __iter__(self) -> Iterator[Metric]:
        """Round by round, those about all clients first."""
        tables: dict[int, list[Table]] = {}
        for table in read_tables(self.folder):
            tables.setdefault(table.round, []).append(table)
        for round, rows in groupby(self.shared, key=lambda row: row.round):
            if round <= self.until:
                yield from rows
                for table in tables.get(round, ()):
                    yield from table.rows()


def count_until(folder: Path, round: int) -> int:
    """How many rows there are about rounds up to `round`."""
    rows = sum(row.round <= round for row in shared_rows(folder))
    tables = [table for table in read_tables(folder) if table.round <= round]
    return rows + sum(len(t.clients) * len(t.columns) for t in tables)


def split(rows: Sequence[Metric]) -> tuple[list[Metric], list[Metric]]:
    """The rows about all clients together, and those about single ones."""
    shared: list[Metric] = []
    single: list[Metric] = []
    for row in rows:
        (single if is_of_a_client(row) else shared).append(row)
    return shared, single
