"""What is in a person's own data, and what is wrong with it, for `fedexp data check`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, final, runtime_checkable

import numpy as np
import pandas as pd

from fedexp.core.checks import InputError
from fedexp.core.text import number_of
from fedexp.data.division import Division, in_two_parts
from fedexp.data.records import PARTS, UNKNOWN, Records, some

MOST_CLASSES = 30  # that are counted one by one


@final
@dataclass(frozen=True)
class Survey:
    """What was found."""

    lines: tuple[str, ...]  # what is there
    faults: tuple[str, ...]  # what is wrong, a sentence each; empty: it is clean
    remarks: tuple[str, ...] = ()  # what is no fault, and good to know


@runtime_checkable
class Surveys(Protocol):
    """A loader that can look its data through, also where a run would refuse them."""

    def survey(self, data_dir: Path) -> Survey:
        """What is there; raises InputError where nothing can be told."""


def tried(records: Records, division: Division) -> tuple[np.ndarray, list[str]]:
    """The part of each example, -1 where there is none, and what is wrong with that."""
    said = np.full(len(records), UNKNOWN) if records.part is None else records.part
    faults = in_two_parts(records, said) if records.part is not None else []
    try:
        parts = division(records)
    except InputError as error:
        if error.reason not in faults:
            faults.append(error.reason)
        parts = said
    return parts, [*faults, *_lacking(records), *_untested(records, parts)]


def counted(records: Records, parts: np.ndarray) -> list[str]:
    """A table: examples by site and class, in each part; of very many classes the largest."""
    sites = _words(records.site, records.site_names, len(records))
    frame = pd.DataFrame({"site": sites, "part": parts})
    y, classes = records.y, range(len(records.class_names))
    sizes = [int((y == k if y.ndim == 1 else y[:, k] > 0).sum()) for k in classes]
    largest = sorted(classes, key=lambda k: -sizes[k])[:MOST_CLASSES]
    rows = []
    for k in sorted(largest):
        has = y == k if y.ndim == 1 else y[:, k] > 0
        for site, of_site in frame[has].groupby("site", sort=False):
            counts = [int((of_site["part"] == part).sum()) for part in range(len(PARTS))]
            rows.append([site, records.class_names[k], *counts, len(of_site)])
    table = pd.DataFrame(rows, columns=["site", "class", *PARTS, "all"])
    if records.site is None:
        table = table.drop(columns="site")
    else:
        table = table.sort_values("site", kind="stable")
    what = [f"{len(records)} examples", f"{len(records.class_names)} classes"]
    if records.site is not None:
        what.append(number_of(len(records.site_names), "site"))
    if records.subject is not None:
        what.append(number_of(len(records.subject_names), "patient"))
    rest = [sizes[k] for k in classes if k not in largest]
    more = [f"and {len(rest)} more classes, of {min(rest)} to {max(rest)} examples"] if rest else []
    return [", ".join(what), *table.to_string(index=False).splitlines(), *more]


def twins(hashes: Sequence[str], records: Records, parts: np.ndarray) -> list[str]:
    """A sentence for every content that lies in two parts, at two sites, or has two labels."""
    frame = pd.DataFrame({"hash": hashes})
    again = frame[frame["hash"].duplicated(keep=False)]
    columns = {
        "in two parts": parts,
        "at two sites": records.site,
        "with two labels": records.patterns,
    }
    found = []
    for _, rows in again.groupby("hash", sort=False):
        first, *others = rows.index.to_list()
        how: dict[str, int] = {}  # what is not the same, and the first row where it is another
        for what, column in columns.items():
            unlike = [] if column is None else [k for k in others if column[k] != column[first]]
            if unlike:
                how[what] = unlike[0]
        if how:
            # Those that differ are named: of three copies two may be alike in all of it.
            named = [first, *sorted(set(how.values()))]
            places = " and ".join(str(records.places[row]) for row in named)
            found.append(f"{places} are the same image, {', '.join(how)}")
    return found


def _lacking(records: Records) -> list[str]:
    """Classes that a site lacks."""
    if records.site is None or records.y.ndim > 1:
        return []
    found = []
    for k, site in enumerate(records.site_names):
        there = set(records.y[records.site == k].tolist())
        lacking = [name for c, name in enumerate(records.class_names) if c not in there]
        if lacking:
            found.append(f"site {site} has no example of class {some(lacking)}")
    return found


def _untested(records: Records, parts: np.ndarray) -> list[str]:
    """Sites that no part can be tested on, or trained on."""
    if records.site is None or (parts == UNKNOWN).any():
        return []
    found = []
    for k, site in enumerate(records.site_names):
        there = set(parts[records.site == k].tolist())
        lacking = [PARTS[part] for part in (0, 2) if part not in there]
        if lacking:
            n = int((records.site == k).sum())
            found.append(f"site {site} has no {' and no '.join(lacking)} example ({n} in all)")
    return found


def _words(codes: np.ndarray | None, names: Sequence[str], n: int) -> list[str]:
    if codes is None:
        return [""] * n
    return [names[code] if code != UNKNOWN else "(not said)" for code in codes.tolist()]
