"""Natural clients where the data know any, else clients that are dealt their examples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np

from fedexp.core.checks import at_least
from fedexp.core.examples import Dataset, Split
from fedexp.core.partition import Partition
from fedexp.core.protocols import Partitioner
from fedexp.partition.site import Sites


@final
@dataclass(frozen=True)
class SiteOrSkew:
    """`Sites` for data that know where they were taken; `skew` over so many clients for others.

    For presets that have to work on a hospital's own sites and on the embedded data alike.

    Args:
        skew: the partition of data without sites.
        skewed_clients: how many clients there are then, at least 1.

    Raises:
        InputError: skewed_clients is not a whole number above 0.
    """

    skew: Partitioner
    skewed_clients: int

    def __post_init__(self) -> None:
        at_least(1, skewed_clients=self.skewed_clients)

    def clients(self, n_sites: Callable[[], int]) -> int:
        """As many as there are sites, if there are any."""
        return n_sites() or self.skewed_clients

    def of(self, dataset: Dataset) -> Partitioner:
        """The one that goes with these data."""
        return Sites().of(dataset) if dataset.has_sites else self.skew

    def __call__(self, train: Split, n_clients: int, rng: np.random.Generator) -> Partition:
        """As `of`, for a training part without a dataset around it."""
        chosen = Sites() if train.has_sites else self.skew
        return chosen(train, n_clients, rng)
