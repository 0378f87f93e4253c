"""Which column of a person's CSV or Parquet file says what, and the file itself, read as words."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import final

import pandas as pd

from fedexp.core.checks import InputError, did_you_mean

USUAL = {
    "file": ("path",),
    "label": ("label",),
    "site": ("site",),
    "subject": ("patient", "subject"),
    "official": ("split",),
}
"""Key -> the names that a column for it is looked for under, where none is given."""


@final
@dataclass(frozen=True)
class Columns:
    """The keys with which a person names columns; None: the usual name, if there is such a column.

    Raises:
        InputError: from `found`, see there.
    """

    file: str | None = None
    label: str | None = None
    site: str | None = None
    subject: str | None = None
    official: str | None = None

    def named(self) -> dict[str, str]:
        """Key -> column, of those that are given."""
        return {key: name for key in USUAL if (name := getattr(self, key)) is not None}

    def found(self, frame: pd.DataFrame, source: Path, needed: tuple[str, ...]) -> dict[str, str]:
        """Key -> column of `frame`, for those that there are.

        Raises:
            InputError: a column that is named, or `needed`, is not there, or is named twice.
        """
        columns = [str(column) for column in frame.columns]
        there: dict[str, str] = {}
        given = self.named()
        for key, usual in USUAL.items():
            named = given.get(key)
            choices = [c for c in columns if c.lower() in usual and c not in given.values()]
            if named is not None:
                choices = [named]
                if other := [k for k, column in given.items() if k < key and column == named]:
                    raise InputError(f"is {other[0]} already: name another column", key, named)
            if len(choices) > 1:
                reason = f"{source.name} has {' and '.join(choices)}: say which it is"
                raise InputError(reason, key, None)
            if choices and choices[0] in columns:
                there[key] = choices[0]
            elif named is not None or key in needed:
                looked_for = named or usual[0]
                suggestion = did_you_mean(looked_for, columns)
                raise InputError(
                    f"{source.name} has no column {looked_for}; {suggestion}Its columns: "
                    f"{', '.join(columns)}",
                    key,
                    named,
                )
        return there


def read_csv(path: Path) -> pd.DataFrame:
    """A CSV file as words, nothing taken for missing but what is empty.

    Columns are separated by what the first line has most of: comma, semicolon or tab.

    Raises:
        InputError: it is no such file; it names the file and, where there is one, the line.
    """
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InputError(
            f"{path.name}, line {line}: is not UTF-8 text; save it as CSV UTF-8"
        ) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    head = text.partition("\n")[0]
    if not head.strip():
        raise InputError(f"{path.name} has no line with the names of its columns")
    if "\0" in text:
        raise InputError(f"{path.name} is not text")
    separator = max(",;\t", key=head.count)
    from io import StringIO

    try:
        with warnings.catch_warnings(record=True) as of_reader:
            warnings.simplefilter("always")
            frame = pd.read_csv(
                StringIO(text), sep=separator, dtype=str, keep_default_na=False, index_col=False
            )
    except (ValueError, pd.errors.ParserError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{path.name} is no table: {reason}") from None
    if any(issubclass(warning.category, pd.errors.ParserWarning) for warning in of_reader):
        _refuse_unnamed(path, text, separator, len(frame.columns))
    frame.columns = [str(column).strip() for column in frame.columns]
    if twice := [c for c in frame.columns if list(frame.columns).count(c) > 1]:
        raise InputError(f"{path.name} has two columns {twice[0]}")
    if not len(frame):
        raise InputError(f"{path.name} has no rows")
    return frame


def _refuse_unnamed(path: Path, text: str, separator: str, named: int) -> None:
    """Raise InputError for values beyond the named columns; separators at a line's end are none.

    R writes row names without a name for them: every value would be that of the next column.
    """
    import csv
    from io import StringIO

    lines = csv.reader(StringIO(text), delimiter=separator)
    for cells in lines:
        if any(cell.strip() for cell in cells[named:]):
            raise InputError(
                f"{path.name}, line {lines.line_num}: has {len(cells)} values, and the first line "
                f"names {named} columns: name all (R: write.csv, or row.names = FALSE)"
            )


def row_of(path: Path, row: int) -> str:
    """How a message calls a row: of a CSV by its line, the header being the first.

    A Parquet file has no lines: its first row is row 1.

    >>> row_of(Path("a.csv"), 0), row_of(Path("a.parquet"), 0)
    ('a.csv line 2', 'a.parquet row 1')
    """
    return f"{path.name} row {row + 1}" if is_parquet(path) else f"{path.name} line {row + 2}"


def is_parquet(path: Path) -> bool:
    """Whether a file is called like a Parquet file."""
    return path.suffix.lower() in (".parquet", ".pq")
