"""A folder of update files that anybody may have written, read round by round.

Rounds, clients and who was malicious come from index.csv (`fedexp.run_folder.update_files`), else
rounds from the nearest folder named round-N and clients from names like client-3.pth; without
either, everything is one round. What cannot be used is noted with its reason, and the rest is read.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from fedexp.core.checks import InputError
from fedexp.core.text import printable
from fedexp.run_folder.untrusted import (
    MAX_BYTES,
    SUFFIXES,
    NotUsable,
    OtherModel,
    read_bytes,
    tensors_in,
)
from fedexp.run_folder.update_files import Layout, index_rows

BATCH_BYTES = 2**29  # of rows that are handed out together; a larger round comes in parts


@final
@dataclass(frozen=True)
class UpdateFile:
    """One file and what is known about it beside its content; None where nothing is.

    Attributes:
        path: where it lies.
        name: the same below the folder that was read, safe to print.
        round: the round that it belongs to.
        client: who sent it; negative for a mixture.
        malicious: whether an adversary wrote it.
        sha256: what its content must have.
    """

    path: Path
    name: str
    round: int | None
    client: int | None
    malicious: bool | None
    sha256: str | None


@final
@dataclass(frozen=True)
class Unusable:
    """A file that could not be used, and why, in one line.

    Attributes:
        path: below the folder that was read, safe to print.
        reason: in one line.
        other_model: whether it would do for a model of other tensors.
    """

    path: str
    reason: str
    other_model: bool


@final
@dataclass
class UpdateFolder:
    """The update files below a folder, and what reading them has come upon so far.

    Attributes:
        files: in the order of their rounds and names.
        unusable: what cannot be used.
        twins: how many files were another kind's copy of the update beside them.
    """

    files: list[UpdateFile]
    unusable: list[Unusable] = field(default_factory=list)
    twins: int = 0

    @property
    def knows_truth(self) -> bool:
        """Whether an index says who was malicious."""
        return any(file.malicious is not None for file in self.files)

    def refuse(self, file: UpdateFile, error: NotUsable) -> None:
        """Note why `file` cannot be used."""
        other_model = isinstance(error, OtherModel)
        self.unusable.append(Unusable(file.name, str(error), other_model))


@final
@dataclass(frozen=True)
class Batch:
    """Updates of one round: rows `[n, d]` float32, and the file of each."""

    files: tuple[UpdateFile, ...]
    matrix: Tensor

    @property
    def clients(self) -> tuple[int, ...] | None:
        """Who sent each row; None unless all senders are known."""
        known = tuple(file.client for file in self.files if file.client is not None)
        return known if len(known) == len(self.files) else None


Read = Callable[[UpdateFile], Mapping[str, Tensor]]
"""Gives the delta's tensors of a file; raises NotUsable."""


def find_updates(folder: Path, without: Sequence[Path] = ()) -> UpdateFolder:
    """The update files below `folder`, which may be a run folder.

    Args:
        folder: where to look, with all folders below; links to folders are not followed.
        without: files that are no updates, such as the detector's.

    Raises:
        InputError: there is no such folder, or nothing in it.
    """
    if not folder.is_dir():
        raise InputError("is no folder", "UPDATES_DIR", folder)
    if (folder / "updates" / "index.csv").exists():
        folder = folder / "updates"
    elif (folder / "config.yaml").exists() and (folder / "checkpoints").is_dir():
        raise InputError(
            "is a run that kept no updates; make one with record_updates=true",
            "UPDATES_DIR",
            folder,
        )
    about = {row["file"]: row for row in index_rows(folder / "index.csv")}
    left_out = {os.path.realpath(path) for path in without}
    found = UpdateFolder([])
    for path, problem in _walk(folder):
        name = path.relative_to(folder).as_posix()
        row = about.pop(name, None)
        if problem:
            found.unusable.append(Unusable(printable(name), problem, False))
        elif os.path.realpath(path) not in left_out:
            found.files.append(_update_file(folder, path, name, row))
    for name in about:
        found.unusable.append(Unusable(printable(name), "is in index.csv, but not there", False))
    if not found.files and not found.unusable:
        endings = ", ".join(SUFFIXES)
        raise InputError(f"holds no file that ends in {endings}", "UPDATES_DIR", folder)
    found.files.sort(key=_order)
    return found


def reader(baseline: Mapping[str, Tensor] | None, max_bytes: int = MAX_BYTES) -> Read:
    """Reads deltas; with a `baseline`, files hold local models, and it is subtracted."""

    def read(file: UpdateFile) -> Mapping[str, Tensor]:
        content = read_bytes(file.path, max_bytes)
        if file.sha256 is not None and hashlib.sha256(content).hexdigest() != file.sha256:
            raise NotUsable("its SHA-256 is not the one in index.csv")
        tensors = tensors_in(content, file.path.suffix.lower(), max_bytes)
        if baseline is None:
            return tensors
        if problem := Layout.of_tensors(baseline).difference(Layout.of_tensors(tensors)):
            raise OtherModel(f"{problem} (as in the global model)")
        delta = {name: tensor - baseline[name] for name, tensor in tensors.items()}
        for name, tensor in delta.items():
            if not bool(torch.isfinite(tensor.float()).all()):
                raise NotUsable(f"its {name!r} lies too far from the global model's")
        return delta

    return read


def batches(found: UpdateFolder, layout: Layout, read: Read) -> Iterator[Batch]:
    """The rows round by round, a very large round in parts of equal size; memory holds one part.

    Files that cannot be used, and twins, are noted in `found` as they are met.
    """
    most = max(1, BATCH_BYTES // (4 * layout.d))
    for _, of_round in groupby(found.files, key=lambda file: file.round):
        files = list(of_round)
        size = math.ceil(len(files) / math.ceil(len(files) / most))
        usable = _usable(found, files, layout, read)
        while part := list(islice(usable, size)):
            yield Batch(tuple(f for f, _ in part), torch.stack([row for _, row in part]))


def _usable(
    found: UpdateFolder, files: Sequence[UpdateFile], layout: Layout, read: Read
) -> Iterator[tuple[UpdateFile, Tensor]]:
    """The files that can be used, each with its row `[d]`."""
    last, last_row = None, torch.empty(0)
    for file in files:
        try:
            tensors = read(file)
            if problem := layout.difference(Layout.of_tensors(tensors)):
                raise OtherModel(problem)
        except NotUsable as error:
            found.refuse(file, error)
            continue
        row = layout.join(tensors)
        if last == file.path.with_suffix("") and torch.equal(row, last_row):
            found.twins += 1
            continue
        yield file, row
        last, last_row = file.path.with_suffix(""), row


def _walk(folder: Path) -> Iterator[tuple[Path, str]]:
    """Every path below `folder` that is named like an update, or that cannot be entered."""
    problems: list[OSError] = []
    for place, folders, names in os.walk(folder, onerror=problems.append):
        folders.sort()
        for name in sorted(folders):
            path = Path(place, name)
            if path.is_symlink():
                yield path, "is a link to a folder, which is not followed"
            elif path.suffix.lower() in SUFFIXES:
                yield path, "is a folder"
        for name in sorted(names):
            if Path(name).suffix.lower() in SUFFIXES:
                yield Path(place, name), ""
    for problem in problems:
        yield Path(str(problem.filename)), f"cannot be opened: {problem.strerror}"


def _update_file(folder: Path, path: Path, name: str, row: Mapping[str, str] | None) -> UpdateFile:
    if row is not None:
        malicious = bool(int(row["malicious"]))
        round, client, digest = int(row["round"]), int(row["client"]), row["sha256"]
        return UpdateFile(path, printable(name), round, client, malicious, digest)
    above = [parent.name for parent in path.parents if parent.is_relative_to(folder)]
    number = next((found for place in above if (found := _number("round", place))), None)
    client_number = _number("client", path.stem)
    return UpdateFile(
        path,
        printable(name),
        None if number is None else int(number),
        None if client_number is None else int(client_number),
        None,
        None,
    )


def _number(word: str, name: str) -> str | None:
    """The digits in a name like round-000007, round_7 or Round 7."""
    found = re.fullmatch(rf"{word}[-_ ]?(\d{{1,15}})", name, re.IGNORECASE | re.ASCII)
    return found[1] if found else None


def _order(file: UpdateFile) -> tuple[int, str, bool, str]:
    """By round, then name; of two kinds of one update, .safetensors first."""
    stem, _, suffix = file.name.rpartition(".")
    return -1 if file.round is None else file.round, stem, suffix != "safetensors", suffix
