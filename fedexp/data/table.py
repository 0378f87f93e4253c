"""A table of a person's own: a row an example, numbers and categories, of a CSV or Parquet file.

Numbers are standardised and what is missing is the median; categories become one column each, and
what is missing is a category of its own. All of it is fitted on the training rows only, by
scikit-learn. A federation would have to agree on these figures first; here they are the pool's.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np
import pandas as pd
import torch

from fedexp.core.checks import InputError, NotThere
from fedexp.core.examples import Dataset
from fedexp.data.columns import Columns, is_parquet, read_csv, row_of
from fedexp.data.division import By, Division
from fedexp.data.download import RemoteFile
from fedexp.data.image_files import said
from fedexp.data.loader import Facts
from fedexp.data.own import about, dataset_of, in_order
from fedexp.data.records import MISSING, Records, some, without_missing
from fedexp.data.survey import Survey, counted, tried

MOST_CATEGORIES = 50
"""A column of words with more than these, or than one for two rows, is a name or a text."""


@final
@dataclass(frozen=True)
class Table:
    """A CSV or Parquet file of examples.

    Args:
        name: the name in the config.
        path: the file.
        label: the column with the class.
        site: with the place; None: `site`, if there is one.
        subject: with the patient; None: `patient` or `subject`, if there is one.
        official: with the official part; None: `split`, if there is one.
        drop: columns that are left out, such as a number of the file.
        split: how they are divided: official, patient, example; auto: the first there can be.
        validation_share: of the examples, where the data do not say which they are.
        test_share: the same.
        split_seed: decides which these are; apart from the run's seed.
        input_shape: (features,), which is compared with what is found.
        num_classes: the same.
    """

    name: str
    path: str
    label: str
    site: str | None
    subject: str | None
    official: str | None
    drop: Sequence[str]
    split: By
    validation_share: float
    test_share: float
    split_seed: int
    input_shape: Sequence[int] | None = None
    num_classes: int | None = None

    def __post_init__(self) -> None:
        _ = self._division  # which refuses what cannot be

    def __call__(self, data_dir: Path) -> Dataset:
        """The dataset; raises InputError where the file, or what it says, cannot be used."""
        read = self._read()
        with about(self.path):
            parts = self._division(read.records)
            features, remarks = prepared(read.values, read.records, parts)
        order = in_order(read.records, parts)
        return dataset_of(
            self.name,
            torch.from_numpy(features[order]),
            1.0,
            read.records.rows(order),
            parts[order],
            (
                *said(read.left_out, self.path),
                *read.records.remarks(),
                *self._division.remarks(read.records, parts),
                *remarks,
            ),
        )

    def facts(self, data_dir: Path) -> Facts:
        """What is in the file."""
        return Facts.of(self(data_dir))

    def files(self, data_dir: Path) -> tuple[RemoteFile, ...]:
        """None: it is there."""
        return ()

    def survey(self, data_dir: Path) -> Survey:
        """What is in the file, and what is wrong with it."""
        read = self._read()
        parts, faults = tried(read.records, self._division)
        told = [f"{place} {why}" for place, why in read.left_out]
        lines, remarks = counted(read.records, parts), read.records.remarks()
        if (parts == 0).any():
            try:
                features, of_columns = prepared(read.values, read.records, parts)
                remarks += of_columns
                lines.append(f"{features.shape[1]} numbers a row")
            except InputError as error:
                faults.append(error.reason)
        return Survey(tuple(lines), (*told, *faults), tuple(remarks))

    def _read(self) -> _Read:
        path = Path(self.path).expanduser()
        columns = Columns(None, self.label, self.site, self.subject, self.official)
        with about(self.path):
            table = _table(path)
            found = columns.found(table, path, needed=("label",))
            for column in self.drop:
                if column not in table:
                    raise InputError(f"{path.name} has no such column", "drop", column)
                if key := next((key for key, name in found.items() if name == column), None):
                    reason = f"is dataset.{key}, which is used and not learned from: drop others"
                    raise InputError(reason, "drop", column)
            return _Read.of(table, found, self.drop, path)

    @cached_property
    def _division(self) -> Division:
        return Division(self.split, self.validation_share, self.test_share, self.split_seed)


@dataclass(frozen=True)
class _Read:
    """A table, its columns told apart."""

    values: pd.DataFrame  # [n] numbers (float64, NaN: missing) and words ("": missing)
    records: Records  # [n]
    left_out: tuple[tuple[str, str], ...]

    @classmethod
    def of(
        cls, table: pd.DataFrame, found: dict[str, str], drop: Sequence[str], path: Path
    ) -> _Read:
        words = table[list(found.values())].map(_word)
        frame = pd.DataFrame({"place": [row_of(path, row) for row in range(len(table))]})
        for column, key in (
            ("label", "label"),
            ("site", "site"),
            ("subject", "subject"),
            ("part", "official"),
        ):
            if key in found:
                of_key = words[found[key]].to_list()
                frame[column] = without_missing(of_key) if key in ("site", "subject") else of_key
        labelled = (frame["label"] != "").to_numpy()
        left_out = tuple((place, "has no label") for place in frame["place"][~labelled])
        values = table.drop(columns=[*found.values(), *drop]).iloc[labelled]
        if values.shape[1] == 0:
            raise InputError("has no column to learn from beside the label")
        if not labelled.any():
            raise InputError(f"{path.name} has no row with a label", "label", found["label"])
        records = Records.of(frame[labelled].reset_index(drop=True))
        plain = pd.DataFrame({c: _column(values[c]) for c in values.columns})
        return cls(plain.reset_index(drop=True), records, left_out)


def _table(path: Path) -> pd.DataFrame:
    """A file of rows; raises InputError."""
    if not path.is_file():
        raise NotThere("there is no such file")
    if not is_parquet(path):
        return read_csv(path)
    try:
        table = pd.read_parquet(path)
    except ImportError:
        raise InputError("a Parquet file needs pyarrow: pip install pyarrow") from None
    except Exception as error:  # whatever a reader makes of a broken file
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"is no Parquet file: {reason}") from None
    named = [name for name in table.index.names if name is not None and name not in table]
    table = table.reset_index(level=named) if named else table  # a column, as in the CSV of it
    return table.rename(columns=str).reset_index(drop=True)


def _word(value: Any) -> str:
    """A cell as a word; "" for a missing one."""
    # One of Parquet can be a list, of which pandas says whether each item is missing.
    return "" if pd.api.types.is_scalar(value) and pd.isna(value) else str(value).strip()


def _column(values: pd.Series[Any]) -> pd.Series[Any]:
    """A column as numbers where all that is there is a number, else as words."""
    if pd.api.types.is_bool_dtype(values):
        return values.astype(np.float64)
    words = values.map(_word)
    there = words != ""
    missing = words.str.lower().isin(MISSING)
    numbers = pd.to_numeric(words.where(there & ~missing), errors="coerce").astype(np.float64)
    if bool(numbers[there & ~missing].notna().all()):
        return numbers.replace([np.inf, -np.inf], np.nan)
    return words


def prepared(
    values: pd.DataFrame, records: Records, parts: np.ndarray
) -> tuple[np.ndarray, list[str]]:
    """The features `[n, f]` float32, fitted on the training rows, and what a person should know.

    Raises:
        InputError: no column is left, or one holds numbers that float32 cannot.
    """
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    train = parts == 0
    numbers, words, remarks = _kinds(values, train)
    if not numbers and not words:
        raise InputError(f"no column is left to learn from: {'; '.join(remarks)}")
    remarks += _nearly_numbers(values, records)
    remarks += _unseen(values, words, records, train)
    remarks += _missing(values, numbers)
    remarks += _numbered(values[train], numbers)
    _refuse_large(values[numbers].to_numpy(), numbers, records, "")
    transform = make_column_transformer(
        (make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), numbers),
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), words),
    )
    transform.fit(values[train])
    features = transform.transform(values)
    _refuse_large(features[:, : len(numbers)], numbers, records, ", standardised,")
    return np.ascontiguousarray(features, np.float32), remarks


def _kinds(values: pd.DataFrame, train: np.ndarray) -> tuple[list[str], list[str], list[str]]:
    """Columns of numbers, columns of words, and a sentence about those that are left out."""
    numbers: list[str] = []
    words: list[str] = []
    remarks: list[str] = []
    for column in values.columns:
        trained = values.loc[train, column]
        number = pd.api.types.is_float_dtype(trained)
        seen = trained.nunique(dropna=True)
        missing = bool(trained.isna().all()) if number else bool((trained == "").all())
        if missing:
            remarks.append(f"column {column} is left out: no training row has a value")
        elif seen == 1 and not (number and trained.isna().any()):
            remarks.append(f"column {column} is left out: it is the same in every training row")
        elif not number and seen > min(MOST_CATEGORIES, len(trained) / 2):
            remarks.append(
                f"column {column} is left out: {seen} different words in {len(trained)} training "
                "rows are no categories"
            )
        elif seen == 1:
            remarks.append(f"column {column} is left out: it has one value, or none")
        else:
            (numbers if number else words).append(str(column))
    return numbers, words, remarks


def _refuse_large(numbers: np.ndarray, columns: Sequence[str], records: Records, how: str) -> None:
    """Raise InputError for a number `[n, columns]` that is infinite as float32."""
    for row, k in np.argwhere(np.abs(numbers) > np.finfo(np.float32).max):
        raise InputError(
            f"column {columns[k]} holds {numbers[row, k]:g}{how} in {records.places[row]}, which "
            f"is too large to learn from: mend it, or leave it out ({_drop(columns[k])})"
        )


def _unseen(
    values: pd.DataFrame, words: Sequence[str], records: Records, train: np.ndarray
) -> list[str]:
    """A sentence for every column with a category that is in no training row."""
    found = []
    for column in words:
        new = ~values[column].isin(set(values.loc[train, column])).to_numpy()
        if new.any():
            names = sorted(set(values.loc[new, column]))
            first = records.places[int(new.argmax())]
            found.append(
                f"column {column}: no training row has {some(names)}, as {first} does; it counts "
                "as none of the categories"
            )
    return found


def _nearly_numbers(values: pd.DataFrame, records: Records) -> list[str]:
    """A sentence for every column of words most of which are numbers, perhaps with a comma."""
    found = []
    for column in values.columns:
        if pd.api.types.is_float_dtype(values[column]):
            continue
        words = values[column]
        there = words[(words != "") & ~words.str.lower().isin(MISSING)]
        number = pd.to_numeric(there, errors="coerce").notna()
        with_comma = pd.to_numeric(there.str.replace(",", "."), errors="coerce").notna()
        if with_comma.mean() > 0.5:
            first = there.index[~number][0]
            decimals = "; write decimals with a point" if with_comma[first] else ""
            found.append(
                f"column {column} counts as words, not as numbers: {records.places[first]} has "
                f"{there[first]}{decimals}"
            )
    return found


def _drop(column: str) -> str:
    """What a person types to leave a column out, whatever it is called.

    >>> print(_drop("id"), _drop("Unnamed: 0"))
    dataset.drop=[id] 'dataset.drop=["Unnamed: 0"]'
    """
    if column.isascii() and column.isidentifier():
        return f"dataset.drop=[{column}]"
    return shlex.quote(f"dataset.drop=[{json.dumps(column, ensure_ascii=False)}]")


def _numbered(trained: pd.DataFrame, numbers: Sequence[str]) -> list[str]:
    """A sentence for every column of whole numbers that differ in all of many rows."""
    return [
        f"column {column} is learned from, and is another whole number in every training row: "
        f"{_drop(column)} if it only names them"
        for column in numbers
        if len(trained) > MOST_CATEGORIES
        and trained[column].is_unique
        and bool((trained[column] % 1 == 0).all())
    ]


def _missing(values: pd.DataFrame, numbers: Sequence[str]) -> list[str]:
    """A sentence about the numbers that are not there."""
    holes = {column: int(values[column].isna().sum()) for column in numbers}
    names = [f"{column} ({n})" for column, n in holes.items() if n]
    if not names:
        return []
    return [f"missing numbers are the training rows' median: {some(names)}"]
