"""Sorted by label and cut in shards: FedAvg's own non-IID partition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from fedexp.core.checks import InputError, at_least
from fedexp.core.examples import Split
from fedexp.core.partition import Partition
from fedexp.partition.assign import assign, check_enough, check_one_class, near_equal_sizes


@final
@dataclass(frozen=True)
class Shards:
    """Sort the rows by label, cut them in shards and give each client some of these at random.

    Source: McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized
    Data", AISTATS 2017, section 3: 200 shards of 300 MNIST digits, two to each of 100 clients. Rows
    of one label keep their order, and where the numbers do not divide, the sizes of the shards
    differ by at most one row.

    Args:
        shards_per_client: how many shards a client gets, at least 1. With large shards it is about
            the number of classes that a client sees; a shard that straddles labels adds one.

    Raises:
        InputError: shards_per_client is not a whole number above 0.
    """

    shards_per_client: int

    def __post_init__(self) -> None:
        at_least(1, shards_per_client=self.shards_per_client)

    def __call__(self, train: Split, n_clients: int, rng: np.random.Generator) -> Partition:
        """Assign `train` to `n_clients`.

        Raises:
            InputError: more clients, or more shards, than examples, or several labels an example.
        """
        check_enough(train, n_clients)
        check_one_class(train, "shards")
        n_shards = n_clients * self.shards_per_client
        if n_shards > len(train):
            raise InputError(
                f"{n_clients} clients make {n_shards} shards and there are {len(train)} examples: "
                f"use at most {len(train) // n_clients}",
                "shards_per_client",
                self.shards_per_client,
            )
        client_of_shard = rng.permutation(np.repeat(np.arange(n_clients), self.shards_per_client))
        owner = np.empty(len(train), dtype=np.int64)
        by_label = np.argsort(train.y.numpy(), kind="stable")
        owner[by_label] = np.repeat(client_of_shard, near_equal_sizes(len(train), n_shards))
        return assign(train, owner, n_clients)
