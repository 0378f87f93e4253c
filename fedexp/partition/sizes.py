"""Exact sizes: so many examples to each client, drawn at random."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from fedexp.core.checks import InputError, at_least
from fedexp.core.examples import Split
from fedexp.core.partition import Partition
from fedexp.partition.assign import assign


@final
@dataclass(frozen=True)
class Sizes:
    """`sizes[k]` examples to client k, all from the same pot; what is over is left out.

    >>> import torch
    >>> train = Split(torch.zeros(9, 1, 2, 2), torch.zeros(9, dtype=torch.int64))
    >>> [len(shard) for shard in Sizes([1, 5, 2])(train, 3, np.random.default_rng(0)).shards]
    [1, 5, 2]

    Args:
        sizes: one whole number above 0 a client.

    Raises:
        InputError: there is none, or one of them is no whole number above 0.
    """

    sizes: Sequence[int]

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", tuple(self.sizes))
        if not self.sizes:
            raise InputError("must name one size a client", "sizes", list(self.sizes))
        for client, size in enumerate(self.sizes):
            at_least(1, **{f"sizes.{client}": size})

    def clients(self, n_sites: Callable[[], int]) -> int:
        """As many as there are sizes."""
        return len(self.sizes)

    def __call__(self, train: Split, n_clients: int, rng: np.random.Generator) -> Partition:
        """Assign `train` to `n_clients`.

        Raises:
            InputError: there are more or fewer sizes, or fewer examples than they add up to.
        """
        if n_clients != len(self.sizes):
            raise InputError(
                f"partition.sizes names {len(self.sizes)} clients: leave n_clients out, or use "
                f"n_clients={len(self.sizes)}",
                "n_clients",
                n_clients,
            )
        if (wanted := sum(self.sizes)) > len(train):
            raise InputError(
                f"add up to {wanted}, and there are {len(train)} examples",
                "sizes",
                list(self.sizes),
            )
        owner = np.full(len(train), -1)
        owner[:wanted] = np.repeat(np.arange(n_clients), self.sizes)
        return assign(train, rng.permutation(owner), n_clients)
