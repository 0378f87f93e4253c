"""thresholds.csv: the shared model's probabilities on test, in bins (`fedexp.core.thresholds`).

    of,at_least,mean,positives,negatives

`of` is the number of a class, or "answer". No row is about a single example. It is written when a
run is complete, about the model of its last round.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

from fedexp.core.checks import InputError
from fedexp.core.documents import read_regular
from fedexp.core.files import write_atomically
from fedexp.core.thresholds import ANSWER, Bin

FILE = "thresholds.csv"
_BYTES = 2**22


def write_thresholds(folder: Path, bins: Sequence[Bin]) -> None:
    """Replace the file; take it away where there is nothing to say."""
    if not bins:
        forget_thresholds(folder)
        return
    text = io.StringIO()
    rows = ((b.of, f"{b.at_least:.6g}", f"{b.mean:.6g}", b.positives, b.negatives) for b in bins)
    csv.writer(text, lineterminator="\n").writerows([Bin._fields, *rows])
    write_atomically(folder / FILE, text.getvalue().encode())


def forget_thresholds(folder: Path) -> None:
    """Take it away: it is about the last model, and the run goes on."""
    (folder / FILE).unlink(missing_ok=True)


def read_thresholds(folder: Path) -> dict[str, list[Bin]]:
    """The bins of every class, from the highest probability down; empty where there is no file.

    Raises:
        InputError: the file is no such table.
    """
    path = folder / FILE
    if not path.exists():
        return {}
    try:
        head, *rows = csv.reader(io.StringIO(read_regular(path, _BYTES).decode(), newline=""))
        if tuple(head) != Bin._fields:
            raise ValueError(f"its columns are not {', '.join(Bin._fields)}")
        found: dict[str, list[Bin]] = {}
        for row in rows:
            one = _bin(row)
            found.setdefault(one.of, []).append(one)
    except (ValueError, csv.Error) as error:
        if isinstance(error, InputError):
            raise
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"is not a table of thresholds ({reason})", "file", path) from None
    return found


def _bin(row: Sequence[str]) -> Bin:
    of, at_least, mean, positives, negatives = row
    found = Bin(of, float(at_least), float(mean), int(positives), int(negatives))
    if of != ANSWER and not (of.isdecimal() and of.isascii() and len(of) < 6):
        raise ValueError(f"{of[:20]!r} is no class")
    counts_fit = all(0 <= count < 2**53 for count in found[3:]) and sum(found[3:]) > 0
    if not counts_fit or not all(math.isfinite(p) and 0 <= p <= 1 for p in found[1:3]):
        raise ValueError("a number in it cannot be")
    return found
