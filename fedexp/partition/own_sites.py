"""Where examples were taken: the rows of each site, and each client's own patients by its site."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch

from fedexp.core.checks import InputError
from fedexp.core.examples import Dataset, Split
from fedexp.core.partition import OwnPart


def site_names(dataset: Dataset) -> tuple[str, ...]:
    """What the sites are called; by their numbers, where nobody has named them.

    Raises:
        InputError: it is not known where the examples were taken.
    """
    site = dataset.train.site
    if site is None:
        raise InputError(
            f"goes by where examples were taken, and {dataset.name} does not say it; use "
            "partition=dirichlet, iid or another that deals them, or data with a site column",
            "partition",
            "site",
        )
    return dataset.site_names or tuple(f"site {k}" for k in range(int(site.max()) + 1))


def rows_of_sites(train: Split, names: Sequence[str]) -> list[np.ndarray]:
    """The training rows of every site, in the order of `names`.

    Raises:
        InputError: a site has no training row, or a training row no site; it names the site.
    """
    assert train.site is not None, "asked of data without sites"
    site = train.site.numpy()
    if len(unknown := np.flatnonzero(site < 0)):
        raise InputError(
            f"{len(unknown)} of {len(site)} training examples have no site (the first is row "
            f"{unknown[0]}), and would be nobody's: name one for them, or leave them out",
            "partition",
            "site",
        )
    rows = [np.flatnonzero(site == k) for k in range(len(names))]
    if empty := [name for name, held in zip(names, rows, strict=True) if not len(held)]:
        raise InputError(
            f"{', '.join(empty)}: no training example is from there, so that no client can be; "
            "leave the site out of the data, or give it some",
            "partition",
            "site",
        )
    return rows


@final
@dataclass(frozen=True)
class OwnBySite:
    """A client's own patients of a part are those of its site; there may be none.

    Args:
        sites: `[n_clients]`, each client's site, by number. Two clients of one site have the same
            patients for their own: what was trained on was divided between them, nothing else.
    """

    sites: tuple[int, ...]

    def __call__(self, part: Split, name: str) -> OwnPart:
        """The rows `[n_clients]` of `part`, which is left as it is."""
        site = torch.full((len(part),), -1) if part.site is None else part.site
        numbers = site.numpy()
        return OwnPart(part, tuple(np.flatnonzero(numbers == k) for k in self.sites))


def own_by_site(train: Split, shards: Sequence[np.ndarray]) -> OwnBySite | None:
    """Each client's own patients, if every client's examples are all from one site."""
    if train.site is None:
        return None
    numbers = train.site.numpy()
    of_clients = [np.unique(numbers[shard]) for shard in shards]
    if any(len(sites) != 1 or sites[0] < 0 for sites in of_clients):
        return None
    return OwnBySite(tuple(int(sites[0]) for sites in of_clients))
