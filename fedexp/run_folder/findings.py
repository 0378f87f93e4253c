"""Findings on disk: RUN/leakage/NAME/, and the headline in the run's summary.

    figures.csv    one row a measured number: subject, round, target, metric, value
    pictures.npz   the arrays that plots are drawn from
    findings.json  name, study (its class), settings, headline, conclusions, adversary, adversaries
                   (names by subject), seconds

A folder without findings.json holds no findings: it is written last, and taken away first when a
study is carried out again. Reading needs neither torch nor pandas.
"""

from __future__ import annotations

import csv
import io
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np

from fedexp.core.checks import InputError
from fedexp.core.documents import TABLE_BYTES, read_json_object, read_regular
from fedexp.core.files import to_json, write_atomically
from fedexp.core.findings import Findings
from fedexp.core.text import cleaned

FOLDER = "leakage"
PICTURE_BYTES = 2**30
_DOCUMENT, _FIGURES, _PICTURES = "findings.json", "figures.csv", "pictures.npz"
_COLUMNS = {"subject": str, "round": int, "target": int, "metric": str, "value": float}


@final
@dataclass(frozen=True)
class StudyRecord:
    """What one study left in the folder of a run.

    Attributes:
        folder: of the study.
        name: which the study was given.
        study: its class.
        settings: its part of the resolved config.
        headline: metric -> value, NaN where it is not defined.
        conclusions: sentences.
        adversary: what it sees and knows, in words.
        seconds: that the study took.
        adversaries: subject -> the adversary's name, "" -> that of all other subjects.
    """

    folder: Path
    name: str
    study: str
    settings: Mapping[str, Any]
    headline: Mapping[str, float]
    conclusions: tuple[str, ...]
    adversary: str
    seconds: float
    adversaries: Mapping[str, str] = field(default_factory=dict)

    def adversary_of(self, subject: str) -> str:
        """The name of the adversary that a figure is about; "" where nobody has named it."""
        return self.adversaries.get(subject, self.adversaries.get("", ""))

    @cached_property
    def figures(self) -> Mapping[str, list[Any]]:
        """The columns of figures.csv: subject, round, target, metric, value.

        Raises:
            InputError: the file is not there, or is no such table.
        """
        path = self.folder / _FIGURES
        try:
            text = read_regular(path, TABLE_BYTES).decode()
            head, *rows = csv.reader(io.StringIO(text, newline=""), strict=True)
            if head != list(_COLUMNS):
                raise ValueError(f"its first line is {head}")
            return {
                name: [kind(row[place]) for row in rows]
                for place, (name, kind) in enumerate(_COLUMNS.items())
            }
        except FileNotFoundError:
            raise InputError("is not there", "file", path) from None
        except InputError:
            raise
        except (ValueError, IndexError, csv.Error) as error:
            raise InputError(f"is not a table of figures ({error})", "file", path) from None

    @cached_property
    def arrays(self) -> Mapping[str, np.ndarray]:
        """What pictures.npz holds, by name; empty if the study drew nothing.

        Raises:
            InputError: the file cannot be read, or holds Python objects, which are not read.
        """
        path = self.folder / _PICTURES
        if not path.exists():
            return {}
        content = io.BytesIO(read_regular(path, PICTURE_BYTES))
        try:
            with zipfile.ZipFile(content) as archive:  # it may unpack to any size
                size = sum(entry.file_size for entry in archive.infolist())
            if size > PICTURE_BYTES:
                raise ValueError(f"it unpacks to {size:,} bytes")
            with np.load(content, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
        except (
            ValueError,
            EOFError,
            OSError,
            MemoryError,
            SyntaxError,
            zipfile.BadZipFile,
        ) as error:
            raise InputError(f"is not a file of arrays ({error})", "file", path) from None


def write_findings(
    folder: Path, name: str, node: Mapping[str, Any], findings: Findings, seconds: float
) -> None:
    """Keep what a study of the run in `folder` found, in place of what it found before.

    Args:
        folder: of the run.
        name: of the study.
        node: the study's part of the resolved config, with its `_target_`.
        findings: of the study.
        seconds: that it took.

    Raises:
        ValueError: an array holds Python objects, which could not be read back.
    """
    arrays: dict[str, Any] = dict(findings.arrays)
    if objects := [key for key, array in arrays.items() if array.dtype.hasobject]:
        raise ValueError(f"arrays of Python objects cannot be kept: {', '.join(objects)}")
    if not name or Path(name).name != name:
        raise InputError("is no name for a study", "leakage", name)
    here = folder / FOLDER / name
    here.mkdir(parents=True, exist_ok=True)
    (here / _DOCUMENT).unlink(missing_ok=True)
    (here / _PICTURES).unlink(missing_ok=True)

    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(_COLUMNS)
    rows.writerows(
        (f.subject, f.round, f.target, f.metric, repr(float(f.value))) for f in findings.figures
    )
    write_atomically(here / _FIGURES, table.getvalue().encode())
    if arrays:
        archive = io.BytesIO()
        np.savez_compressed(archive, **arrays)
        write_atomically(here / _PICTURES, archive.getvalue())
    document = {
        "name": name,
        "study": str(node.get("_target_", "")).rpartition(".")[2],
        "settings": node,
        "headline": _floats(findings.headline),
        "conclusions": list(findings.conclusions),
        "adversary": findings.adversary,
        "adversaries": dict(findings.adversaries),
        "seconds": round(float(seconds + findings.seconds_before), 3),
    }
    write_atomically(here / _DOCUMENT, to_json(document, indent=1))


def read_findings(folder: Path) -> tuple[StudyRecord, ...]:
    """What the studies of the run in `folder` found, by name; empty if there was none.

    Raises:
        InputError: a findings.json cannot be read.
    """
    return tuple(_read(path) for path in sorted((folder / FOLDER).glob(f"*/{_DOCUMENT}")))


def add_to_summary(folder: Path, name: str, headline: Mapping[str, float]) -> None:
    """Put a headline under "leakage" into the run's summary.json; the rest of it stays.

    Raises:
        InputError: the run has no summary that could be read.
    """
    path = folder / "summary.json"
    if not path.is_file():
        raise InputError("is not a finished run (it has no summary.json)", "RUN_DIR", folder)
    summary = read_json_object(path)
    known = summary.get(FOLDER) or {}
    write_atomically(
        path, to_json({**summary, FOLDER: {**known, name: _floats(headline)}}, indent=1)
    )


def _read(path: Path) -> StudyRecord:
    document = cleaned(read_json_object(path))
    if document.get("name") != path.parent.name:  # files are named by it
        raise InputError(f"is of {document.get('name')!r}, not of its folder's", "file", path)
    try:
        return StudyRecord(
            folder=path.parent,
            name=str(document["name"]),
            study=str(document["study"]),
            settings=dict(document["settings"]),
            headline={
                str(metric): math.nan if value is None else float(value)
                for metric, value in document["headline"].items()
            },
            conclusions=tuple(map(str, document["conclusions"])),
            adversary=str(document["adversary"]),
            seconds=float(document["seconds"]),
            adversaries={
                str(subject): str(name)
                for subject, name in dict(document.get("adversaries") or {}).items()
            },
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"does not hold findings ({error!r})", "file", path) from None


def _floats(headline: Mapping[str, float]) -> dict[str, float]:
    """The headline without NumPy's kinds of numbers, which JSON cannot say."""
    return {str(metric): float(value) for metric, value in headline.items()}
