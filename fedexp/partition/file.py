"""Who holds what, read from a file: also from another run's `partition.json`.

JSON: an object with `indices`, one list of training rows a client, and optionally `names` of the
clients, the `hash` of who holds what and the `counts` of each client's classes, as a run writes
them; or the bare list of lists. NPZ: one array of rows a client, named by its client
(`np.savez(file, north=rows, south=rows)`) or not (`np.savez(file, rows, rows)`).
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch

from fedexp.core.checks import InputError, NotThere
from fedexp.core.documents import DOCUMENT_BYTES, parse_json, read_regular
from fedexp.core.examples import Split
from fedexp.core.partition import Partition
from fedexp.core.shards import partition_hash
from fedexp.partition.own_sites import own_by_site


@final
@dataclass(frozen=True)
class FromFile:
    """The rows that a file names for each client; draws nothing.

    Args:
        path: the file, or the folder of a run that has a `partition.json`; relative to the current
            folder.
    """

    path: str

    def clients(self, n_sites: Callable[[], int]) -> int:
        """As many as the file names rows for."""
        return len(self._read().shards)

    def __call__(self, train: Split, n_clients: int, rng: np.random.Generator) -> Partition:
        """The partition of the file.

        Raises:
            InputError: it cannot be read, is for another number of clients, was changed since its
                hash was taken, or is of other data.
        """
        held = self._read()
        if n_clients != len(held.shards):
            raise InputError(
                f"{self.path} holds the rows of {len(held.shards)} clients: leave n_clients out, "
                f"or use n_clients={len(held.shards)}",
                "n_clients",
                n_clients,
            )
        self._refuse_other_rows(held, train)
        own = own_by_site(train, held.shards)
        return Partition(train, held.shards, names=held.names, own=own)

    def _read(self) -> _Held:
        place = Path(self.path).expanduser()
        place = place / "partition.json" if place.is_dir() else place
        try:
            content = read_regular(place, DOCUMENT_BYTES)
            if place.suffix == ".npz":
                return _held(_arrays(content))
            return _held(parse_json(content.decode()))
        except InputError as error:
            raise InputError(error.reason, "path", self.path) from error
        except FileNotFoundError as error:
            raise NotThere("there is no such file", "path", self.path) from error
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(f"cannot be read: {reason}", "path", self.path) from error

    def _refuse_other_rows(self, held: _Held, train: Split) -> None:
        """Raise InputError where the file is about other examples than these."""
        last = max((int(shard.max()) for shard in held.shards if len(shard)), default=0)
        if last >= len(train):
            raise InputError(
                f"names row {last}, and there are {len(train)} training examples: it is of other "
                "data, or of another train_examples",
                "path",
                self.path,
            )
        for client, (shard, counts) in enumerate(zip(held.shards, held.counts, strict=False)):
            found = _label_counts(train, shard, len(counts))
            if found != counts:
                raise InputError(
                    f"says that the examples of client {client} have {counts} of each class, and "
                    f"these rows have {found}: it is of other data",
                    "path",
                    self.path,
                )


@dataclass(frozen=True)
class _Held:
    """What a file says."""

    shards: tuple[np.ndarray, ...]
    names: tuple[str, ...] = ()
    counts: tuple[list[int], ...] = ()


def _held(content: Any) -> _Held:
    """What was read as shards, if that is what it is; InputError."""
    document = content if isinstance(content, dict) else {"indices": content}
    indices = document.get("indices")
    if not isinstance(indices, Sequence) or isinstance(indices, str) or not len(indices):
        raise InputError("must hold indices, a list of training rows for every client")
    shards = tuple(_shard(client, rows) for client, rows in enumerate(indices))
    if document.get("examples_changed"):
        raise InputError(
            "is of a partition that changed the examples (feature), which indices do not tell; use "
            "that partition with the same seed"
        )
    said = document.get("hash")
    if said is not None and said != (found := partition_hash(shards)):
        raise InputError(
            f"was changed since it was written: its hash is {said}, and its indices have {found}"
        )
    names, counts = document.get("names") or [], document.get("counts") or []
    if not _is_list_of(str, names) or len(names) not in (0, len(shards)):
        raise InputError(f"must name each of its {len(shards)} clients, or none")
    if not _is_list_of(list, counts):
        raise InputError("must hold counts of each class, a list for every client")
    return _Held(shards, tuple(names), tuple(counts))


def _is_list_of(kind: type, found: object) -> bool:
    return isinstance(found, list) and all(isinstance(item, kind) for item in found)


def _shard(client: int, rows: object) -> np.ndarray:
    """One client's rows, ascending; InputError for anything but whole numbers from 0."""
    flat = isinstance(rows, np.ndarray) or _is_list_of(int, rows)
    shard = np.asarray(rows if flat else [])
    if shard.ndim != 1 or shard.dtype.kind not in "iu" or not len(shard) or int(shard.min()) < 0:
        raise InputError(f"must name whole row numbers, from 0, for client {client}; it does not")
    return np.sort(shard.astype(np.int64))


def _arrays(content: bytes) -> dict[str, Any]:
    """The arrays of an NPZ file in their order, with the names of clients if they have any."""
    with zipfile.ZipFile(io.BytesIO(content)) as members:
        if sum(member.file_size for member in members.infolist()) > DOCUMENT_BYTES:
            raise InputError(f"unfolds to more than {DOCUMENT_BYTES:,} bytes")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        names = list(arrays.files)
        shards = [arrays[name] for name in names]
    unnamed = all(re.fullmatch(r"arr_\d+", name) for name in names)
    return {"indices": shards, "names": [] if unnamed else names}


def _label_counts(train: Split, shard: np.ndarray, num_classes: int) -> list[int]:
    """How many of a client's rows have each class, or each label."""
    y = train.y[torch.from_numpy(shard)]
    if not train.one_class:
        return [int(count) for count in y.sum(dim=0).tolist()]
    return [int(count) for count in torch.bincount(y, minlength=num_classes).tolist()]
