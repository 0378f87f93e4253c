"""Which examples of validation and test are each client's own patients.

A partition that knows says so (`Partition.own`): the rows of a site, or images through the client's
own scanner. Where examples were dealt out by chance or by class, nobody has patients of its own.
Then rows are drawn from everybody's, as many as there are in the client's mix of classes:

    n = min over classes c of (examples of c in the part) / (share of c among the client's),
    and n times its share of every class, rounded so that they add up

so that what is measured on them is an estimate of what the client would see. Two clients may be
given the same row. A class that the part lacks is left out, and the other shares grow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np

from fedexp.core.examples import Split
from fedexp.core.partition import OwnPart, Partition
from fedexp.core.rng import generator


@final
@dataclass(frozen=True)
class OwnPatients:
    """Each client's own patients of the parts that are not trained on.

    Args:
        partition: may know them.
        parts: validation and test, by name.
        mixes: `[n_clients, classes]`, each client's share of each class.
        seed: of the run; rows that have to be drawn are drawn from it.
    """

    partition: Partition
    parts: Mapping[str, Split]
    mixes: np.ndarray
    seed: int

    @property
    def are_known(self) -> bool:
        """Whether they are the clients' own, and not drawn in their mix: else an estimate."""
        return self.partition.own is not None

    @cached_property
    def of(self) -> Mapping[str, OwnPart]:
        """By part."""
        return {name: self._of(name, part) for name, part in self.parts.items()}

    @property
    def scopes(self) -> Mapping[str, str]:
        """By part, the name under which its own rows are evaluated.

        The part's own name where clients see it as it is, else one beside it.
        """
        return {
            name: f"own_{name}" if self.are_known and self.of[name].part is not part else name
            for name, part in self.parts.items()
        }

    def seen_otherwise(self) -> dict[str, Split]:
        """By scope, the parts that have to be evaluated beside the common ones."""
        return {scope: self.of[name].part for name, scope in self.scopes.items() if scope != name}

    def _of(self, name: str, part: Split) -> OwnPart:
        if self.partition.own is not None:
            return self.partition.own(part, name)
        if not part.one_class:  # without classes there is no mix: everybody's are anybody's
            return OwnPart(part, (np.arange(len(part)),) * len(self.mixes))
        rows = tuple(
            in_mix(part.y.numpy(), mix, generator(self.seed, f"own_{name}", client))
            for client, mix in enumerate(self.mixes)
        )
        return OwnPart(part, rows)


def in_mix(y: np.ndarray, mix: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As many rows as there are whose classes come in a mix: sorted int64, empty if there is none.

    Args:
        y: `[n]` classes.
        mix: `[classes]` shares.
        rng: says which rows of a class.

    >>> y = np.array([0, 0, 0, 0, 1, 1])
    >>> y[in_mix(y, np.array([0.5, 0.5]), np.random.default_rng(0))].tolist()
    [0, 0, 1, 1]
    """
    there = np.bincount(y, minlength=len(mix))[: len(mix)]
    shares = np.where(there > 0, mix, 0.0)
    if not shares.any():
        return np.empty(0, dtype=np.int64)
    shares = shares / shares.sum()
    wanted = shares > 0
    size = int((there[wanted] / shares[wanted]).min() + 1e-9)
    counts = np.minimum(_rounded(shares * size), there)
    rows = [rng.permutation(np.flatnonzero(y == c))[:k] for c, k in enumerate(counts)]
    return np.sort(np.concatenate(rows)).astype(np.int64)


def _rounded(amounts: np.ndarray) -> np.ndarray:
    """Whole numbers with the same sum, to the nearest: the largest remainders are rounded up.

    >>> _rounded(np.array([1.5, 1.2, 0.3])).tolist()
    [2, 1, 0]
    """
    counts = np.floor(amounts + 1e-9).astype(np.int64)
    missing = round(amounts.sum()) - int(counts.sum())
    counts[np.argsort(counts - amounts, kind="stable")[:missing]] += 1
    return counts
