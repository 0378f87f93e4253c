"""A skew within sites: every site is several clients, which share its examples unevenly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
import torch

from fedexp.core.checks import InputError, at_least
from fedexp.core.examples import Dataset, Split
from fedexp.core.partition import Partition
from fedexp.core.protocols import Partitioner
from fedexp.partition.own_sites import OwnBySite, rows_of_sites, site_names


@final
@dataclass(frozen=True)
class WithinSites:
    """Each site's rows dealt over `clients_per_site` clients by another partition.

    Wards of a hospital, or the parts of a region: what differs between sites stays between them,
    and the inner partition's skew comes on top. Client numbers go site by site, names are the
    site's with 1, 2, ... behind it. The patients of a site's validation and test parts are those of
    all its clients.

    Args:
        clients_per_site: k, at least 1.
        inner: the partition of one site's rows; one that deals them and leaves them as they are.

    Raises:
        InputError: clients_per_site is not a whole number above 0.
    """

    clients_per_site: int
    inner: Partitioner

    def __post_init__(self) -> None:
        at_least(1, clients_per_site=self.clients_per_site)

    def clients(self, n_sites: Callable[[], int]) -> int:
        """`clients_per_site` for each site."""
        return n_sites() * self.clients_per_site

    def of(self, dataset: Dataset) -> Partitioner:
        """With the names that the dataset has for its sites.

        Raises:
            InputError: it does not know where its examples were taken.
        """
        return _NamedSites(site_names(dataset), self.clients_per_site, self.inner)

    def __call__(self, train: Split, n_clients: int, rng: np.random.Generator) -> Partition:
        """As `of`, for a training part without a dataset around it: sites have numbers."""
        return self.of(Dataset("the data", train, train, train, ()))(train, n_clients, rng)


@dataclass(frozen=True)
class _NamedSites:
    names: tuple[str, ...]
    clients_per_site: int
    inner: Partitioner

    def __call__(self, train: Split, n_clients: int, rng: np.random.Generator) -> Partition:
        """Every site's rows among its clients.

        Raises:
            InputError: there are not `clients_per_site` clients a site, a site has no training row,
                or its rows cannot be dealt by the inner partition; it names the site.
        """
        k, sites = self.clients_per_site, len(self.names)
        if n_clients != k * sites:
            raise InputError(
                f"{sites} sites of {k} clients each make {k * sites}: leave n_clients out, or use "
                f"n_clients={k * sites}",
                "n_clients",
                n_clients,
            )
        shards: list[np.ndarray] = []
        for name, rows in zip(self.names, rows_of_sites(train, self.names), strict=True):
            shards += [rows[shard] for shard in self._dealt(name, train, rows, rng)]
        own = OwnBySite(tuple(site for site in range(sites) for _ in range(k)))
        return Partition(train, tuple(shards), names=self._client_names(), own=own)

    def _dealt(
        self, name: str, train: Split, rows: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, ...]:
        """For each of the site's clients, places in `rows`."""
        part = train.rows(torch.from_numpy(rows))
        try:
            dealt = self.inner(part, self.clients_per_site, rng)
        except InputError as error:
            raise _at_site(name, error) from error
        if dealt.train.x is not part.x:
            raise InputError(
                "changes the examples, and sites have scanners of their own already; use one that "
                "deals them only",
                "inner",
                type(self.inner).__name__,
            )
        return tuple(dealt.shards)

    def _client_names(self) -> tuple[str, ...]:
        if self.clients_per_site == 1:
            return self.names
        return tuple(f"{n}-{i + 1}" for n in self.names for i in range(self.clients_per_site))


def _at_site(name: str, error: InputError) -> InputError:
    """What the inner partition refused, with the site and with keys as this one has them."""
    key = {"n_clients": "clients_per_site", "partition": "inner"}.get(
        error.key or "", f"inner.{error.key}"
    )
    return InputError(f"at {name}: {error.reason}", key, error.value)
