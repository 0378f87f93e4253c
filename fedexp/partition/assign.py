"""What every partitioner ends in: one owner a row, turned into one shard a client.

An assignment is an array `owner` `[n_rows]` that names the client of each row, -1 for a row that is
left out. A row cannot have two owners, so shards are disjoint by construction. A class is named by
its position among the labels that occur.
"""

from __future__ import annotations

import numpy as np

from fedexp.core.checks import InputError, at_least
from fedexp.core.examples import Split
from fedexp.core.partition import Partition


def check_enough(train: Split, n_clients: int, min_size: int = 1) -> None:
    """Refuse an assignment that has fewer rows than its clients need.

    Args:
        train: the part to assign.
        n_clients: how many clients there are, at least 1.
        min_size: how many examples every client must get; an argument of the partitioner.

    Raises:
        InputError: there are more clients than examples (key `n_clients`), or too few examples to
            give every client `min_size` of them (key `min_size`).
    """
    at_least(1, n_clients=n_clients)
    if n_clients > len(train):
        raise InputError(
            f"every client needs at least one example and there are {len(train)}: "
            f"use at most {len(train)} clients",
            "n_clients",
            n_clients,
        )
    if n_clients * min_size > len(train):
        raise InputError(
            f"{n_clients} clients would need {n_clients * min_size} examples and there are "
            f"{len(train)}: use at most {len(train) // n_clients}",
            "min_size",
            min_size,
        )


def near_equal_sizes(total: int, parts: int) -> np.ndarray:
    """`parts` whole numbers `[parts]` that add up to `total` and differ by at most one.

    >>> near_equal_sizes(10, 4).tolist()
    [2, 3, 2, 3]
    """
    return np.diff(np.arange(parts + 1) * total // parts)


def check_one_class(train: Split, partition: str) -> None:
    """Refuse a training part whose examples have any number of labels; `partition` by its name.

    Raises:
        InputError: they have (key `partition`).
    """
    if not train.one_class:
        raise InputError(
            "needs one class an example, and these examples have any number of labels; use "
            "partition=iid or partition=quantity",
            "partition",
            partition,
        )


def class_sizes(train: Split) -> tuple[np.ndarray, np.ndarray]:
    """The labels that occur `[n_classes]`, in order, and how many examples each has."""
    labels, sizes = np.unique(train.y.numpy(), return_counts=True)
    return labels, sizes


def assign(train: Split, owner: np.ndarray, n_clients: int) -> Partition:
    """The partition in which client k holds the rows whose `owner` `[n_rows]` is k.

    >>> import torch
    >>> train = Split(torch.zeros(4, 1, 2, 2), torch.zeros(4, dtype=torch.int64))
    >>> [shard.tolist() for shard in assign(train, np.array([1, 0, -1, 1]), 2).shards]
    [[1], [0, 3]]

    Raises:
        ValueError: a client holds nothing, which a partitioner must have ruled out.
    """
    # A stable sort keeps the rows of one client in ascending order.
    rows = np.argsort(owner, kind="stable").astype(np.int64, copy=False)
    sizes = np.bincount(owner + 1, minlength=n_clients + 1)
    if not sizes[1:].all():
        raise ValueError(f"client {int(np.argmin(sizes[1:]))} holds nothing")
    _left_out, *shards = np.split(rows, np.cumsum(sizes)[:-1])
    return Partition(train, tuple(shards))


def assign_sizes(train: Split, sizes: np.ndarray, rng: np.random.Generator) -> Partition:
    """Rows at random, `sizes[k]` of them to client k; `sizes` `[n_clients]` adds up to the rows."""
    return assign(train, rng.permutation(np.repeat(np.arange(len(sizes)), sizes)), len(sizes))


def assign_classes(train: Split, counts: np.ndarray, rng: np.random.Generator) -> Partition:
    """Rows at random within each class, `counts[k, c]` of the c-th class to client k.

    Args:
        train: the part to assign.
        counts: `[n_clients, n_classes]`; what a class has beyond its column's sum is left out.
        rng: decides which examples of a class go to whom.
    """
    _, class_of_row = np.unique(train.y.numpy(), return_inverse=True)
    owner = np.full(len(train), -1)
    for c, taken in enumerate(counts.T):
        rows = rng.permutation(np.flatnonzero(class_of_row == c))
        owner[rows[: taken.sum()]] = np.repeat(np.arange(len(counts)), taken)
    return assign(train, owner, len(counts))


def log_dirichlet(concentration: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Logarithms of `draws` Dirichlet vectors, up to a constant a row; see `proportions`.

    `Generator.dirichlet` underflows to zeros or NaN where the concentration is tiny. Here
    log Gamma(a) = log Gamma(a + 1) + log(U) / a, which never does (Marsaglia & Tsang, "A simple
    method for generating gamma variables", ACM TOMS 2000, section 6).

    Args:
        concentration: `[k]`, all above 0. Beyond 1e-100 and 1e100 the law is one class alone, or
            no spread at all, to the last bit, so that it is clipped there.
        draws: how many vectors.
        rng: the stream they come from.

    Returns:
        `[draws, k]` finite.
    """
    a = np.clip(concentration, 1e-100, 1e100)
    shape = (draws, len(a))
    return np.asarray(
        np.log(rng.standard_gamma(a + 1, shape)) - rng.standard_exponential(shape) / a
    )


def proportions(logarithms: np.ndarray) -> np.ndarray:
    """Rows scaled to sum to 1 from their logarithms `[n, k]`; -inf is 0, but not in a whole row.

    >>> proportions(np.array([[0.0, 0.0, -np.inf], [-1e9, -2e9, -3e9]])).tolist()
    [[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]
    """
    weights = np.exp(logarithms - logarithms.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))
