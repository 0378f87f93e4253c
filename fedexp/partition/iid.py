"""Everybody draws from the same pot: the partition without skew that others are compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from fedexp.core.examples import Split
from fedexp.core.partition import Partition
from fedexp.partition.assign import assign_sizes, check_enough, near_equal_sizes


@final
@dataclass(frozen=True)
class Iid:
    """Shuffle all rows and cut them into shards whose sizes differ by at most one.

    Source: McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized
    Data", AISTATS 2017, section 3 (the IID partition).

    >>> import torch
    >>> train = Split(torch.zeros(5, 1, 2, 2), torch.zeros(5, dtype=torch.int64))
    >>> [len(shard) for shard in Iid()(train, 2, np.random.default_rng(0)).shards]
    [2, 3]
    """

    def __call__(self, train: Split, n_clients: int, rng: np.random.Generator) -> Partition:
        """Assign `train` to `n_clients`.

        Raises:
            InputError: more clients than examples.
        """
        check_enough(train, n_clients)
        return assign_sizes(train, near_equal_sizes(len(train), n_clients), rng)
