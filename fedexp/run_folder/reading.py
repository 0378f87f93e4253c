"""Reads the single files of a run folder.

What is not there is empty or None; a file that cannot be read is an InputError that names it.
"""

from __future__ import annotations

import csv
import io
import math
import operator
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from fedexp.core.checks import InputError
from fedexp.core.documents import (
    TABLE_BYTES,
    parse_json,
    read_json_object,
    read_regular,
    read_text,
    read_yaml_mapping,
)
from fedexp.run_folder.client_rows import Table, read_tables
from fedexp.run_folder.estimates import RECALL, estimates
from fedexp.run_folder.format import COLUMNS

_COLUMNS = list(COLUMNS)
_LARGEST = 2**63
_WORDS = _COLUMNS[1:4]  # a few words, repeated: as categories they take a tenth of the memory


Measured: TypeAlias = tuple[int, str, str, str, float]
"""A measured number: round, scope, client, metric, value."""


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object that a file holds."""
    return read_json_object(path) if path.exists() else None


def read_config(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds."""
    return read_yaml_mapping(path) if path.exists() else {}


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file; a last line that was cut off is left out."""
    if not path.exists():
        return []
    lines = [line for line in read_text(path, TABLE_BYTES).splitlines() if line.strip()]
    try:
        rows: list[dict[str, Any]] = parse_json(f"[{','.join(lines)}]")
    except ValueError:
        rows = list(_one_by_one(path, lines))
    if wrong := next((row for row in rows if not isinstance(row, dict)), None):
        raise InputError(f"holds {str(wrong)[:40]!r}, which is no JSON object", "file", path)
    return rows


def _one_by_one(path: Path, lines: list[str]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, start=1):
        try:
            yield parse_json(line)
        except ValueError:
            # A run that was killed, or is writing right now, leaves half a line at the end.
            if number < len(lines):
                raise InputError(f"line {number} is not valid JSON", "file", path) from None


def read_shared(folder: Path, complete: bool) -> pd.DataFrame:
    """What was measured of all clients together, in the order of the rounds.

    Of a run of an older version, every measured number. `complete` says that the run is over.
    """
    columns: list[Any] = list(zip(*measured(folder, complete), strict=True)) or [[]] * 5
    kinds = {"round": "int64", **dict.fromkeys(_WORDS, "category"), "value": "float64"}
    rows = pd.DataFrame(dict(zip(COLUMNS, columns, strict=True)), dtype=object).astype(kinds)
    # Of an old run that was killed and resumed the last rounds may be there twice.
    return rows.drop_duplicates(_COLUMNS[:4], keep="last").sort_values("round", kind="stable")


def measured(folder: Path, complete: bool) -> list[Measured]:
    """The same as (round, scope, client, metric, value), in the order of the file.

    A table of pandas takes twenty times as long to make, which a sweep of a thousand runs feels.

    Raises:
        InputError: the file is none of ours.
    """
    jsonl, csv_file = folder / "metrics.jsonl", folder / "metrics.csv"
    # Until such a run is complete its CSV may lack the last lines; afterwards it is faster to read.
    read = csv_file if csv_file.exists() and (complete or not jsonl.exists()) else jsonl
    try:
        lines = _of_csv(read, complete) if read == csv_file else _of_jsonl(read)
        words: dict[str, str] = {}  # each once in memory
        rows = [_row(line, words) for line in lines]
    except (ValueError, TypeError, OverflowError, csv.Error) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"is not a metrics table ({_line(error)})", "file", read) from None
    if not all(map(str.isprintable, words)):
        raise InputError("is not a metrics table (a word in it is none)", "file", read)
    return rows


def _of_csv(path: Path, complete: bool) -> Iterator[Sequence[Any]]:
    """The five columns of each line; of a run that goes on, no line that is being written."""
    content = read_regular(path, TABLE_BYTES)
    whole = content if complete else content[: content.rfind(b"\n") + 1]
    if complete and content and not content.endswith(b"\n"):
        raise ValueError("its last line is cut off")  # and its number would be another
    lines = csv.reader(io.StringIO(whole.decode(), newline=""))
    header = next(lines, [])
    if missing := [name for name in _COLUMNS if name not in header]:
        raise InputError(f"lacks the columns {', '.join(missing)}", "file", path)
    of_line = operator.itemgetter(*map(header.index, _COLUMNS))
    for line in filter(None, lines):
        if len(line) != len(header):
            raise ValueError(f"line {lines.line_num} has {len(line)} fields, not {len(header)}")
        yield of_line(line)


def _of_jsonl(path: Path) -> Iterator[Sequence[Any]]:
    rows = read_lines(path)
    if rows and (missing := [name for name in _COLUMNS if not any(name in row for row in rows)]):
        raise InputError(f"lacks the columns {', '.join(missing)}", "file", path)
    yield from ([row.get(name) for name in _COLUMNS] for row in rows)


def _row(line: Sequence[Any], words: dict[str, str]) -> Measured:
    round, scope, client, metric, value = line
    number = int(round)
    if not -_LARGEST <= number < _LARGEST:
        raise OverflowError("a round is too large")
    for word in (scope, client, metric):
        if not isinstance(word, str):
            raise TypeError("a word in it is none")
    scope, client, metric = (words.setdefault(word, word) for word in (scope, client, metric))
    return number, scope, client, metric, math.nan if value in ("", None) else float(value)


def read_of_clients(
    folder: Path, complete: bool, scope: str, metrics: Collection[str]
) -> Iterator[Measured]:
    """What was measured of single clients in a scope, without a table of all that was measured.

    Of a run of an older version it is among `measured`. Of a run that goes on there may be rounds
    that are not in `measured` yet.
    """
    tables = read_tables(folder, complete)
    for table in tables:
        for (about, metric), values in table.columns.items():
            if about == scope and metric in metrics:
                for client, value in zip(table.clients.tolist(), values.tolist(), strict=True):
                    yield table.round, scope, str(client), metric, value
    if not tables:
        for row in measured(folder, complete):
            if row[1] == scope and row[3] in metrics:
                yield row


def read_metrics(
    folder: Path, complete: bool, shared: pd.DataFrame, counts: np.ndarray
) -> pd.DataFrame:
    """Every measured number, and the estimates that follow from them, in the order of the rounds.

    Args:
        folder: of the run.
        complete: whether the run is over.
        shared: what `read_shared` gave.
        counts: `[n_clients, classes]` examples of each class; `[0, 0]` where they are not listed.
    """
    last = shared["round"].max() if len(shared) else 0
    tables = [table for table in read_tables(folder, complete) if table.round <= last]
    tables += estimates(_recalls(shared), counts)
    if not tables:
        return shared
    both = pd.concat([shared.astype(dict.fromkeys(_WORDS, object)), _frame(tables)])
    both = both.astype(dict.fromkeys(_WORDS, "category"))
    return both.sort_values("round", kind="stable", ignore_index=True)


def _recalls(shared: pd.DataFrame) -> dict[int, dict[str, float]]:
    """By round, the recall of every class by its number."""
    found: dict[int, dict[str, float]] = {}
    rows = shared[shared["scope"] == RECALL]
    for round, metric, value in zip(rows["round"], rows["metric"], rows["value"], strict=True):
        found.setdefault(int(round), {})[str(metric)] = float(value)
    return found


def _frame(tables: Sequence[Table]) -> pd.DataFrame:
    """A row a number. One frame for all: of a column each, a sweep's report would take minutes."""
    columns: dict[str, list[np.ndarray]] = {name: [] for name in _COLUMNS}
    for table in tables:
        names = np.array([str(client) for client in table.clients.tolist()], dtype=object)
        for (scope, metric), values in table.columns.items():
            columns["round"].append(np.full(len(names), table.round))
            columns["scope"].append(np.full(len(names), scope, dtype=object))
            columns["client"].append(names)
            columns["metric"].append(np.full(len(names), metric, dtype=object))
            columns["value"].append(np.asarray(values, dtype=np.float64))
    return pd.DataFrame({name: np.concatenate(pieces) for name, pieces in columns.items()})


def read_confusion(path: Path) -> pd.DataFrame | None:
    """A square table of counts whose rows have the names of its columns."""
    if not path.exists():
        return None
    content = io.BytesIO(read_regular(path, TABLE_BYTES))
    try:
        counts = pd.read_csv(content).astype("float64")
    except (ValueError, TypeError) as error:
        raise InputError(f"is not a table of counts ({_line(error)})", "file", path) from None
    if counts.shape[0] != counts.shape[1]:
        rows, columns = counts.shape
        raise InputError(f"must be square, is {rows} x {columns}", "file", path)
    return counts.set_axis(counts.columns, axis=0)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
