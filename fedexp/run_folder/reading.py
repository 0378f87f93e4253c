"""Reads the single files of a run folder.

What is not there is empty or None; a file that cannot be read is an InputError that names it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import yaml  # type: ignore[import-untyped]

from fedexp.core.checks import InputError
from fedexp.core.files import read_json_object
from fedexp.run_folder.format import COLUMNS

_COLUMNS = list(COLUMNS)
_WORDS = _COLUMNS[1:4]  # a few words, repeated: as categories they take a tenth of the memory


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Reads what OmegaConf writes as OmegaConf does, ten times faster where libyaml is there."""


# Dates stay strings; and 1e-3, which YAML 1.1 takes for a string, is a number.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?[0-9][0-9_]*\.?[0-9_]*[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object that a file holds."""
    return read_json_object(path) if path.is_file() else None


def read_config(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds."""
    if not path.is_file():
        return {}
    try:
        config = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (yaml.YAMLError, ValueError) as error:
        line = " ".join(str(error).split())
        raise InputError(f"is not a YAML mapping ({line})", "file", path) from None
    if not isinstance(config, dict):
        raise InputError("is not a YAML mapping", "file", path)
    return {str(key): value for key, value in config.items()}


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file; a last line that was cut off is left out."""
    if not path.is_file():
        return []
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    try:
        rows: list[dict[str, Any]] = json.loads(f"[{','.join(lines)}]")
    except ValueError:
        rows = list(_one_by_one(path, lines))
    return rows


def _one_by_one(path: Path, lines: list[str]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, start=1):
        try:
            yield json.loads(line)
        except ValueError:
            # A run that was killed, or is writing right now, leaves half a line at the end.
            if number < len(lines):
                raise InputError(f"line {number} is not valid JSON", "file", path) from None


def read_metrics(folder: Path, complete: bool) -> pd.DataFrame:
    """Every measured number, in the order of the rounds; `complete` says that the run is over."""
    jsonl, csv = folder / "metrics.jsonl", folder / "metrics.csv"
    # Until a run is complete its CSV may lack the last lines; afterwards it is faster to read.
    if csv.is_file() and (complete or not jsonl.is_file()):
        try:
            rows = pd.read_csv(csv, dtype=dict.fromkeys(_WORDS, "category"))
        except (ValueError, pd.errors.ParserError) as error:
            raise InputError(f"is not a metrics table ({error})", "file", csv) from None
    else:
        rows = pd.DataFrame(read_lines(jsonl), columns=_COLUMNS)
    if missing := [name for name in _COLUMNS if name not in rows]:
        raise InputError(f"lacks the columns {', '.join(missing)}", "file", csv)
    rows = rows[_COLUMNS].astype(
        {"round": "int64", **dict.fromkeys(_WORDS, "category"), "value": "float64"}
    )
    # A run that was killed and resumed may have written its last rounds twice.
    return rows.drop_duplicates(_COLUMNS[:4], keep="last").sort_values("round", kind="stable")


def read_confusion(path: Path) -> pd.DataFrame | None:
    """A square table of counts whose rows have the names of its columns."""
    if not path.is_file():
        return None
    try:
        counts = pd.read_csv(path)
    except ValueError as error:
        raise InputError(f"is not a table of counts ({error})", "file", path) from None
    if counts.shape[0] != counts.shape[1]:
        rows, columns = counts.shape
        raise InputError(f"must be square, is {rows} x {columns}", "file", path)
    return counts.set_axis(counts.columns, axis=0)
