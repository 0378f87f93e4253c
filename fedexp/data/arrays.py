"""Arrays of a person's own in an `.npz` file, as `numpy.savez` writes it. Nothing is unpickled.

    x       [n, height, width], [n, height, width, C], [n, C, height, width] or [n, features]:
            bytes (pixels from 0 to 255) or floating numbers (pixels from 0 to 1)
    y       [n] whole numbers or words; or [n, labels] of 0 and 1, with task=multilabel
    site, subject, split    [n] words or whole numbers; each may be missing
    class_names             [classes] words, of the whole numbers 0, 1, ...; may be missing

or, with official parts, x_train and y_train, x_val and y_val, x_test and y_test (site_train, ...).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import final
from zipfile import BadZipFile

import numpy as np
import pandas as pd
import torch

from fedexp.core.checks import InputError, NotThere, did_you_mean
from fedexp.core.examples import Dataset
from fedexp.data.division import By, Division
from fedexp.data.download import RemoteFile
from fedexp.data.loader import Facts
from fedexp.data.own import about, dataset_of, in_order
from fedexp.data.records import Labels, Records, without_missing
from fedexp.data.survey import Survey, counted, tried

Arrays_ = Mapping[str, np.ndarray]
SUFFIXES = {"train": ("train",), "validation": ("val", "valid", "validation"), "test": ("test",)}


@final
@dataclass(frozen=True)
class Arrays:
    """Examples in one `.npz` file.

    Args:
        name: the name in the config.
        path: the file.
        label: the array with the labels; None: `y`.
        site: with the place; None: `site`, if there is one.
        subject: with the patient; None: `subject` or `patient`, if there is one.
        official: with the official part; None: `split`, if there is one.
        split: how they are divided: official, patient, example; auto: the first there can be.
        validation_share: of the examples, where the data do not say which they are.
        test_share: the same.
        split_seed: decides which these are; apart from the run's seed.
        input_shape: of an example, which is compared with what is found.
        num_classes: the same.
    """

    name: str
    path: str
    label: str | None
    site: str | None
    subject: str | None
    official: str | None
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
        x, records = self._read()
        with about(self.path):
            parts = self._division(records)
        order = in_order(records, parts)
        return dataset_of(
            self.name,
            torch.from_numpy(x[order]),
            255 if x.dtype == np.uint8 else 1.0,
            records.rows(order),
            parts[order],
            (*records.remarks(), *self._division.remarks(records, parts)),
        )

    def facts(self, data_dir: Path) -> Facts:
        """What is in the file."""
        return Facts.of(self(data_dir))

    def files(self, data_dir: Path) -> tuple[RemoteFile, ...]:
        """None: it is there."""
        return ()

    def survey(self, data_dir: Path) -> Survey:
        """What is in the file, and what is wrong with it."""
        x, records = self._read()
        parts, faults = tried(records, self._division)
        kind = "images" if x.ndim == 4 else "rows"
        size = "x".join(map(str, x.shape[1:]))
        return Survey(
            (*counted(records, parts), f"{kind} of {size}, {x.dtype}"),
            tuple(faults),
            tuple(records.remarks()),
        )

    def _read(self) -> tuple[np.ndarray, Records]:
        """The examples `[n, *shape]` uint8 or float32, and what is known of them."""
        names = {
            "label": (self.label,) if self.label else ("y",),
            "site": (self.site,) if self.site else ("site",),
            "subject": (self.subject,) if self.subject else ("subject", "patient"),
            "official": (self.official,) if self.official else ("split",),
        }
        needed = {key for key in names if getattr(self, key) is not None} | {"label"}
        with about(self.path):
            arrays = _joined(_arrays(Path(self.path).expanduser()))
            x = _examples(arrays)
            columns = {}
            for key, choices in names.items():
                there = [choice for choice in choices if choice in arrays]
                if there:
                    columns[key] = _one_each(arrays[there[0]], there[0], len(x))
                elif key in needed:
                    suggestion = did_you_mean(choices[0], arrays)
                    reason = f"has no array {choices[0]}; {suggestion}Its arrays: "
                    given = getattr(self, key)
                    raise InputError(reason + ", ".join(arrays), key if given else None, given)
            return x, _records(columns, arrays.get("class_names"), Path(self.path).name)

    @cached_property
    def _division(self) -> Division:
        return Division(self.split, self.validation_share, self.test_share, self.split_seed)


def _arrays(path: Path) -> Arrays_:
    """All arrays of a file; raises InputError if it is no such file."""
    if not path.is_file():
        raise NotThere("there is no such file")
    try:
        # Unpickling runs whatever code the file holds.
        with np.load(path, allow_pickle=False) as file:
            if isinstance(file, np.ndarray):
                raise InputError("is one array; save x and y together: numpy.savez(FILE, x=x, y=y)")
            return {name: _plain(file, name) for name in file.files}
    except InputError:
        raise
    except (ValueError, EOFError, OSError, BadZipFile, AttributeError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"is no .npz file of plain arrays: {reason}") from None


def _plain(file: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    try:
        return file[name]
    except ValueError as error:
        if "allow_pickle" in str(error):
            reason = f"array {name} holds pickled objects, which could run code: save it as numbers"
            raise InputError(f"{reason} or as words (x.astype(str))") from None
        raise


def _joined(arrays: Arrays_) -> Arrays_:
    """Official parts in arrays of their own, as one array each, with `split`."""
    parts = {
        part: suffix
        for part, suffixes in SUFFIXES.items()
        for suffix in suffixes
        if f"x_{suffix}" in arrays
    }
    if "x" in arrays or not parts:
        return arrays
    joined: dict[str, np.ndarray] = {}
    for stem in ("x", "y", "site", "subject", "patient"):
        there = [f"{stem}_{suffix}" for suffix in parts.values() if f"{stem}_{suffix}" in arrays]
        if there and len(there) < len(parts):
            lacking = next(f"{stem}_{s}" for s in parts.values() if f"{stem}_{s}" not in arrays)
            raise InputError(f"has {there[0]} and no {lacking}")
        if there:
            try:
                joined[stem] = np.concatenate([arrays[name] for name in there])
            except ValueError as error:
                raise InputError(f"{' and '.join(there)} do not fit: {error}") from None
    sizes = [len(arrays[f"x_{suffix}"]) for suffix in parts.values()]
    joined["split"] = np.repeat(list(parts), sizes)
    return joined | {k: v for k, v in arrays.items() if k == "class_names"}


def _examples(arrays: Arrays_) -> np.ndarray:
    """`x` as `[n, C, H, W]` or `[n, f]`, uint8 or float32."""
    if "x" not in arrays:
        raise InputError(f"has no array x; its arrays: {', '.join(arrays) or 'none'}")
    x = arrays["x"]
    if x.ndim == 3:
        x = x[:, None]
    elif x.ndim == 4 and x.shape[1] not in (1, 3) and x.shape[3] in (1, 3):
        x = np.moveaxis(x, 3, 1)
    elif x.ndim == 4 and x.shape[1] not in (1, 3) and x.shape[3] in (2, 4):
        raise InputError(
            f"x is {list(x.shape)}: images of {x.shape[3]} channels in the last axis are not read; "
            "save [n, height, width, 1 or 3], or channels first: numpy.moveaxis(x, 3, 1)"
        )
    if x.ndim not in (2, 4) or x.size == 0:
        raise InputError(f"x is {list(arrays['x'].shape)}: it must hold n images or n rows")
    if x.dtype == np.uint8:
        if x.ndim == 4:
            return np.ascontiguousarray(x)
        return x.astype(np.float32)
    if x.dtype.kind not in ("fiub" if x.ndim == 2 else "f"):
        raise InputError(f"x is {x.dtype}: save bytes (uint8) or floating numbers")
    with np.errstate(over="ignore"):  # which is refused
        numbers = np.ascontiguousarray(x, np.float32)
    wrong = ~np.isfinite(numbers).reshape(len(numbers), -1).all(axis=1)
    if wrong.any():
        row = int(wrong.argmax())
        first = x[row][~np.isfinite(numbers[row])][0]
        raise InputError(f"x[{row}] holds numbers that are not finite as float32: {first:g}")
    if x.ndim == 4:
        outside = ((numbers < 0) | (numbers > 1)).reshape(len(numbers), -1).any(axis=1)
        if outside.any():
            row = int(outside.argmax())
            low, high = numbers[row].min(), numbers[row].max()
            raise InputError(f"x[{row}] holds pixels {low:g} to {high:g}: they must be in [0, 1]")
    return numbers


def _one_each(column: np.ndarray, name: str, n: int) -> np.ndarray:
    """A column `[n]`, or labels `[n, labels]`."""
    if column.ndim == 2 and column.shape[1] == 1:
        column = column[:, 0]
    if len(column.shape) == 0 or len(column) != n:
        many = f"{len(column)} entries" if column.ndim else "a single value"
        raise InputError(f"x has {n} examples, and {name} {many}")
    if column.ndim > 2 or (column.ndim == 2 and name != "y"):
        raise InputError(f"{name} is {list(column.shape)}: it must hold one entry an example")
    return column


def _records(columns: Arrays_, class_names: np.ndarray | None, file: str) -> Records:
    y = columns["label"]
    frame = pd.DataFrame({"place": [f"{file} row {row}" for row in range(len(y))]})
    for column, key in (("site", "site"), ("subject", "subject"), ("part", "official")):
        if key in columns:
            words = _words(columns[key], key)
            frame[column] = words if column == "part" else without_missing(words)
    names = None if class_names is None else tuple(map(str, class_names.tolist()))
    if twice := [name for name in names or () if (names or ()).count(name) > 1]:
        raise InputError(f"class_names has {twice[0]} twice")
    if y.ndim == 2:
        return Records.of(frame, _several(y, names))
    if names is not None:
        return Records.of(frame, _named(y, names))
    return Records.of(frame.assign(label=_words(y, "y")))


def _several(y: np.ndarray, names: tuple[str, ...] | None) -> Labels:
    if y.dtype.kind not in "biuf" or not np.isin(y, (0, 1)).all():
        raise InputError("y of several labels must hold 0 and 1 only")
    names = names or tuple(f"label {k}" for k in range(y.shape[1]))
    if len(names) != y.shape[1]:
        raise InputError(f"y has {y.shape[1]} labels, and class_names {len(names)}")
    return Labels(y.astype(np.uint8), names)


def _named(y: np.ndarray, names: tuple[str, ...]) -> Labels:
    """Whole numbers that are places in the list of names."""
    if y.dtype.kind not in "iub" or y.min() < 0 or y.max() >= len(names):
        span = f"0 to {len(names) - 1}"
        raise InputError(f"y must hold whole numbers {span}, the places in class_names")
    return Labels(y.astype(np.int64), names)


def _words(column: np.ndarray, name: str) -> list[str]:
    if column.dtype.kind == "f":
        wrong = ~(np.abs(column) <= 2.0**53) | (column != column.round())
        if wrong.any():  # beyond 2**53 whole numbers that differ are one float
            row = int(wrong.argmax())
            raise InputError(f"{name}[{row}] is {column[row]:g}, and no whole number or word")
        column = column.astype(np.int64)
    if column.dtype.kind not in "iubUS":
        raise InputError(f"{name} is {column.dtype}: it must hold whole numbers or words")
    if column.dtype.kind == "S":
        column = np.char.decode(column, "utf-8", "replace")
    return [str(word).strip() for word in column.tolist()]
