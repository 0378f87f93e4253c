"""Natural clients: each is a site, with its name, its examples and its own patients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np

from fedexp.core.checks import InputError
from fedexp.core.examples import Dataset, Split
from fedexp.core.partition import Partition
from fedexp.core.protocols import Partitioner
from fedexp.partition.own_sites import own_by_site, rows_of_sites, site_names


@final
@dataclass(frozen=True)
class Sites:
    """A client a site of the data, in the order of the sites' numbers; draws nothing.

    The natural partition of, for example, Ogier du Terrail et al., "FLamby: Datasets and Benchmarks
    for Cross-Silo Federated Learning in Realistic Healthcare Settings", NeurIPS 2022. Nothing is
    simulated: sizes, classes and scanners are what they are. A site may lack test patients; it has
    no figures of its own then.
    """

    def clients(self, n_sites: Callable[[], int]) -> int:
        """As many as there are sites."""
        return n_sites()

    def of(self, dataset: Dataset) -> Partitioner:
        """With the names that the dataset has for its sites.

        Raises:
            InputError: it does not know where its examples were taken.
        """
        return _NamedSites(site_names(dataset))

    def __call__(self, train: Split, n_clients: int, rng: np.random.Generator) -> Partition:
        """As `of`, for a training part without a dataset around it: sites have numbers."""
        return self.of(Dataset("the data", train, train, train, ()))(train, n_clients, rng)


@dataclass(frozen=True)
class _NamedSites:
    names: tuple[str, ...]

    def __call__(self, train: Split, n_clients: int, rng: np.random.Generator) -> Partition:
        """Every site its rows.

        Raises:
            InputError: there are more or fewer sites, one has no training row, or a row no site.
        """
        if n_clients != len(self.names):
            raise InputError(
                f"each site is a client, and there are {len(self.names)}: leave n_clients out, or "
                f"use n_clients={len(self.names)}",
                "n_clients",
                n_clients,
            )
        shards = tuple(rows_of_sites(train, self.names))
        return Partition(train, shards, names=self.names, own=own_by_site(train, shards))
