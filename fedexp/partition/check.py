"""What a partition must keep, whoever made it: checked once, where it is received.

An overlap is no detail. An attack on data poisons the rows of malicious clients, and would poison
those of the honest ones who hold them too; a privacy account counts an example once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from fedexp.core.checks import InputError
from fedexp.core.examples import Split
from fedexp.core.partition import Own, OwnPart, Partition
from fedexp.core.shards import Computed, all_rows, are_listed, blocks, sizes_of

AT_ONCE = 4096  # examples looked at together


def checked(partition: object, train: Split, n_clients: int, name: str) -> Partition:
    """The partition with every shard as sorted int64, if it is one of `train` to `n_clients`.

    Args:
        partition: what a partitioner returned.
        train: what it was given.
        n_clients: how many clients it was asked for.
        name: of the partitioner, for the message.

    Raises:
        InputError: there are too many or too few shards; a client holds nothing, a row twice or a
            row that there is not; two clients hold the same row; or the training part that it
            returned is another one, or cannot be trained on. It names the clients and rows.
    """

    def refused(reason: str) -> InputError:
        return InputError(reason, "partition", name)

    if not isinstance(partition, Partition):
        raise refused(f"must return a Partition, and returned a {type(partition).__name__}")
    if partition.train.x.shape != train.x.shape or partition.train.y.shape != train.y.shape:
        raise refused(
            f"changed the training part from {list(train.x.shape)} to "
            f"{list(partition.train.x.shape)}: it may change examples, not their number or shape"
        )
    if reason := _wrong_of_changed(partition.train, train):
        raise refused(reason)
    if not isinstance(partition.shards, Sequence | Computed):
        raise refused(f"must return a sequence of shards, not a {type(partition.shards).__name__}")
    if len(partition.shards) != n_clients:
        raise refused(f"gave {len(partition.shards)} shards to {n_clients} clients")
    changed = partition.train.x is not train.x
    if partition.own is not None:  # asked for later, and held to form then
        own = partial(_checked_own, partition.own, n_clients, name)
        partition = replace(partition, own=own)
    if not are_listed(partition.shards):
        if reason := _wrong_of_computed(partition, len(train)):
            raise refused(reason)
        return replace(partition, changed=changed)
    owner = np.full(len(train), -1)
    shards = []
    for client, shard in enumerate(partition.shards):
        rows = _sorted(shard)
        if rows is None:
            raise refused(f"gave client {client} no list of whole row numbers")
        if not len(rows):
            raise refused(f"left client {client} without an example")
        if rows[0] < 0 or rows[-1] >= len(train):
            wrong = rows[0] if rows[0] < 0 else rows[-1]
            raise refused(f"gave client {client} row {wrong}, and rows are 0 to {len(train) - 1}")
        if len(twice := rows[:-1][np.diff(rows) == 0]):
            raise refused(f"gave client {client} row {twice[0]} more than once")
        if len(taken := rows[owner[rows] >= 0]):
            others = f"clients {owner[taken[0]]} and {client}"
            raise refused(f"gave row {taken[0]} to {others}: {len(taken)} row(s) overlap")
        owner[rows] = client
        shards.append(rows)
    if any(not isinstance(name, str) for name in partition.names):
        raise refused("must name its clients by text (Partition.names)")
    if partition.names and (
        len(partition.names) != n_clients or len(set(partition.names)) != n_clients
    ):
        raise refused(f"named {len(set(partition.names))} of {n_clients} clients")
    return replace(partition, shards=tuple(shards), changed=changed)


def _checked_own(own: Own, n_clients: int, name: str, part: Split, of: str) -> OwnPart:
    """Every client's own patients of a part, sorted int64, if they are rows of it, each once."""

    def refused(reason: str) -> InputError:
        return InputError(f"{reason} as own patients of {of} (Partition.own)", "partition", name)

    given: object = own(part, of)
    if not isinstance(given, OwnPart):
        raise refused(f"gave a {type(given).__name__}, and no OwnPart,")
    if given.part.x.shape != part.x.shape or given.part.y.shape != part.y.shape:
        raise refused(f"gave {len(given.part)} examples for {len(part)}, or of another shape,")
    if len(given.rows) != n_clients:
        raise refused(f"gave {len(given.rows)} lists of rows to {n_clients} clients")
    found = []
    for client, listed in enumerate(given.rows):
        rows = _sorted(listed)
        if rows is None or (len(rows) and (rows[0] < 0 or rows[-1] >= len(part))):
            raise refused(f"gave client {client} other than rows 0 to {len(part) - 1}")
        if len(twice := rows[:-1][np.diff(rows) == 0]):
            raise refused(f"gave client {client} row {twice[0]} more than once")
        found.append(rows)
    return replace(given, rows=tuple(found))


def refuse_shared_rows(shards: Sequence[np.ndarray], name: str) -> None:
    """Raise InputError where two clients hold a row, of which an account would count one.

    Args:
        shards: what a setting made of a partition's.
        name: of the setting.
    """
    rows = np.sort(all_rows(shards))
    if len(twice := rows[:-1][np.diff(rows) == 0]):
        raise InputError(
            f"gives row {twice[0]} to more than one client, and no privacy mechanism counts what "
            "two clients hold; use setting=federated, or privacy=none",
            "setting",
            name,
        )


def patients_apart(shards: Sequence[np.ndarray], train: Split) -> tuple[str, ...]:
    """A sentence where several clients hold examples of one patient; none where nobody is known."""
    if train.subject is None:
        return ()
    owners = np.repeat(np.arange(len(shards)), sizes_of(shards))
    of = train.subject.numpy()[all_rows(shards)]
    pairs = np.unique(np.stack([of, owners])[:, of >= 0], axis=1)
    _, clients = np.unique(pairs[0], return_counts=True)
    if not (apart := int((clients > 1).sum())):
        return ()
    return (
        f"{apart:,} of {len(clients):,} patients have examples with several clients; "
        "what is promised for an example or a client is not promised for a patient",
    )


def _wrong_of_computed(partition: Partition, n: int) -> str:
    """The same of shards that are computed, a block of clients at a time; "" for nothing."""
    held = np.zeros(n, dtype=bool)
    for sizes, rows in blocks(partition.shards):
        if not sizes.all():
            return "left a client without an example"
        if len(rows) != sizes.sum() or rows.dtype != np.int64:
            return "gave clients other numbers of rows than it says"
        if len(rows) and (rows.min() < 0 or rows.max() >= n):
            return f"gave a client a row that there is not; rows are 0 to {n - 1}"
        held[rows] = True
    if int(held.sum()) < int(sizes_of(partition.shards).sum()):
        return "gave a row more than once"
    return "named its clients, who are too many to list" if partition.names else ""


def _wrong_of_changed(given: Split, train: Split) -> str:
    """What cannot be trained on of what a partition made of the training part; "" for nothing."""
    if given.y is not train.y:
        if given.y.dtype != train.y.dtype:
            return f"made {given.y.dtype} of labels that are {train.y.dtype}".replace("torch.", "")
        known = torch.isin(given.y, train.y.unique())
        if not bool(known.all()):
            return f"made a label {given.y[~known][0]}, which no example of the training part has"
    looked_at = given.x.split(AT_ONCE) if given.x is not train.x else ()
    if not all(bool(block.isfinite().all()) for block in looked_at):
        return "made values that are not finite of the examples"
    return ""


def _sorted(shard: Sequence[int] | np.ndarray) -> np.ndarray | None:
    """The rows in ascending order, int64; None if they are no list of whole numbers."""
    rows = np.asarray(shard)
    if rows.ndim != 1 or (rows.size and rows.dtype.kind not in "iu"):
        return None
    # A copy where it would be a view of memory that may not be written, which torch minds.
    rows = np.require(rows, dtype=np.int64, requirements="W")
    return rows if bool((np.diff(rows) > 0).all()) else np.sort(rows)
