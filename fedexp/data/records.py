"""What is known of each example beside its values: label, site, patient, official part.

Whoever reads a person's own files (images, arrays, a table) brings the words of the file in a frame
with the columns of `COLUMNS`; here they become the numbers that a `Split` carries.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import final

import numpy as np
import pandas as pd

from fedexp.core.checks import InputError, did_you_mean

COLUMNS = ("place", "label", "site", "subject", "part")
"""Of a frame: `place` is what a message calls the example; the others are words, "" for unknown.
`site`, `subject` and `part` may be missing."""

PARTS = ("train", "validation", "test")
OF_WORDS = {
    **dict.fromkeys(("train", "training"), 0),
    **dict.fromkeys(("validation", "valid", "val", "dev"), 1),
    **dict.fromkeys(("test", "testing"), 2),
}
"""What people call the official parts -> place in `PARTS`."""

UNKNOWN = -1
MISSING = ("nan", "na", "<na>", "n/a", "#n/a", "null", "none", "?")
"""What people and programs write, in small letters, where they do not know."""

SHOWN = 5  # names in a message
_NUMBER = re.compile(r"[+-]?\d*\.?\d+")


@final
@dataclass(frozen=True)
class Records:
    """What is known of n examples beside their values."""

    places: np.ndarray  # [n] words: a file, or a row of one
    y: np.ndarray  # [n] int64; or [n, labels] uint8
    class_names: tuple[str, ...]
    site: np.ndarray | None  # [n] int64, -1: not known
    site_names: tuple[str, ...]
    subject: np.ndarray | None  # [n] int64, -1: not known
    subject_names: tuple[str, ...]
    part: np.ndarray | None  # [n] int64 place in PARTS, -1: not said

    def __len__(self) -> int:
        return len(self.y)

    @property
    def patterns(self) -> np.ndarray:
        """`[n]` int64: the label, or a number for each combination of labels that occurs."""
        if self.y.ndim == 1:
            return self.y
        return np.unique(self.y, axis=0, return_inverse=True)[1].reshape(-1)

    @classmethod
    def of(cls, frame: pd.DataFrame, labels: Labels | None = None) -> Records:
        """From words to numbers.

        Args:
            frame: see `COLUMNS`; of all that is used, so that nobody has a class without examples.
            labels: where they are no words.

        Raises:
            InputError: a part has a name that nobody uses.
        """
        labels = labels or Labels.of(frame["label"].tolist())
        site, site_names = _optional(frame, "site")
        subject, subject_names = _optional(frame, "subject")
        places = frame["place"].to_numpy(dtype=object)
        return cls(
            places=places,
            y=labels.y,
            class_names=labels.class_names,
            site=site,
            site_names=site_names,
            subject=subject,
            subject_names=subject_names,
            part=_parts(frame["part"], places) if "part" in frame else None,
        )

    def remarks(self) -> list[str]:
        """What a person may not have meant: classes called missing, and examples of nobody."""
        found = [
            f"class {name} counts as a class; a label that is not known is left empty"
            for name in self.class_names
            if name.lower() in MISSING
        ]
        if amount := next(filter(_has_a_fraction, self.class_names), None):
            n = len(self.class_names)
            found.append(
                f"each of {n} labels counts as a class, {amount} among them; amounts are not "
                "learned: cut them into ranges first, if these are some"
            )
        for codes, what, so in (
            (self.site, "site", "partition=site refuses training examples of none"),
            (self.subject, "patient", "each counts as one of its own"),
        ):
            if codes is not None and (nobody := codes == UNKNOWN).any():
                first = self.places[int(nobody.argmax())]
                found.append(f"{nobody.sum()} examples have no {what}, as {first}: {so}")
        return found

    def rows(self, chosen: np.ndarray) -> Records:
        """Those at `chosen` `[k]`, in that order."""

        def cut(column: np.ndarray | None) -> np.ndarray | None:
            return None if column is None else column[chosen]

        return Records(
            self.places[chosen],
            self.y[chosen],
            self.class_names,
            cut(self.site),
            self.site_names,
            cut(self.subject),
            self.subject_names,
            cut(self.part),
        )


@final
@dataclass(frozen=True)
class Labels:
    """What the examples are labelled with."""

    y: np.ndarray  # [n] int64; or [n, labels] uint8
    class_names: tuple[str, ...]

    @classmethod
    def of(cls, words: Sequence[str]) -> Labels:
        """Of one word an example."""
        return cls(*coded(words))


def coded(words: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """A number for each word, -1 for "", and the words in order: 0.5, 2, 10, a2, a10.

    >>> coded(["10", "2", "", "2"])
    (array([ 1,  0, -1,  0]), ('2', '10'))
    """
    codes, found = pd.factorize(np.asarray(words, dtype=object))
    names = [str(word) for word in found]
    order = sorted((name for name in names if name), key=naturally)
    rank = {name: place for place, name in enumerate(order)} | {"": UNKNOWN}
    ranks = np.array([rank[name] for name in names], dtype=np.int64)
    return ranks[codes], tuple(order)


def without_missing(words: Iterable[str]) -> list[str]:
    """Names of sites or patients, those that say that there is none as "".

    >>> without_missing(["north", "NaN", "7"])
    ['north', '', '7']
    """
    return ["" if word.lower() in MISSING else word for word in words]


def _has_a_fraction(word: str) -> bool:
    """Whether a word is a number that is not whole: rather an amount than the name of a class.

    >>> [_has_a_fraction(word) for word in ("0.14", "2.0", "3", "ill", "inf")]
    [True, False, False, False, False]
    """
    try:
        return math.isfinite(float(word)) and float(word) % 1 != 0
    except ValueError:
        return False


def naturally(word: str) -> tuple[tuple[int, Decimal, str], ...]:
    """A key to sort by in which numbers, and whole numbers inside words, count as numbers.

    >>> sorted(["1.25", "-1", "v1.10", "0.5", "v1.9"], key=naturally)
    ['-1', '0.5', '1.25', 'v1.9', 'v1.10']
    """
    pieces = [word] if _NUMBER.fullmatch(word) else re.findall(r"\d+|\D+", word)
    return tuple((0, Decimal(p), "") if _NUMBER.fullmatch(p) else (1, Decimal(), p) for p in pieces)


def some(names: Sequence[str]) -> str:
    """The first few, and how many more there are.

    >>> some(["a", "b", "c", "d", "e", "f", "g"])
    'a, b, c, d, e and 2 more'
    """
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _optional(frame: pd.DataFrame, column: str) -> tuple[np.ndarray | None, tuple[str, ...]]:
    if column not in frame:
        return None, ()
    codes, names = coded(frame[column].tolist())
    return (codes, names) if names else (None, ())


def _parts(words: pd.Series[str], places: np.ndarray) -> np.ndarray | None:
    known = words.str.strip().str.lower()
    numbers = known.map(OF_WORDS | {"": UNKNOWN})
    if numbers.isna().any():
        row = int(numbers.isna().to_numpy().argmax())
        word = words.iloc[row]
        raise InputError(
            f"{places[row]} is in a part {word!r}; {did_you_mean(word, PARTS)}Known: "
            f"{', '.join(OF_WORDS)}"
        )
    found: np.ndarray = numbers.to_numpy(dtype=np.int64)
    return None if (found == UNKNOWN).all() else found
