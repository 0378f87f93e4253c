"""Minimum-diameter averaging: the mean of the n - f rows that lie closest together.

    step = mean of S,   S = argmin over |S| = n - f of max over i, j in S of ||delta_i - delta_j||

The answer is exact, but not every subset is looked at: whatever rows are left, the two that are
farthest apart cannot both stay, so one of them goes, f times over, along at most 2^f ways. These
two are among the f (n - 1) + 1 farthest pairs: f rows have no part in more.

Source: El Mhamdi, Guerraoui, Guirguis, Hoang and Rouault, "Genuinely Distributed Byzantine Machine
Learning", PODC 2020; the estimator is Rousseeuw's, "Multivariate Estimation with High Breakdown
Point", 1985. One pair makes the diameter, so several subsets often share the smallest one: of those
the one with the least sum of squared distances is taken, where byzfl takes the first in the order
of the clients. Breakdown point: f attackers, 2f < n.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb
from typing import final

import numpy as np
import torch
from torch import Tensor

from fedexp.core.checks import InputError, at_least, refuse_majority
from fedexp.core.geometry import squared_distances
from fedexp.core.norms import weighted_sum
from fedexp.core.stateless import Stateless
from fedexp.core.types import State, Updates

BLOCK_NUMBERS = 2**22  # pairs looked at together


@final
@dataclass(frozen=True)
class MinimumDiameterAveraging(Stateless):
    """The mean of the n - f rows with the smallest diameter: `[n, d]` to `[d]`.

    Args:
        assumed_malicious: f, how many of the clients that answer may lie.
        max_subsets: the most subsets to look at, min(2^f, C(n, f)); more are refused.
    """

    assumed_malicious: int
    max_subsets: int

    def __post_init__(self) -> None:
        at_least(0, assumed_malicious=self.assumed_malicious)
        at_least(1, max_subsets=self.max_subsets)

    def __call__(
        self, updates: Updates, state: State, rng: np.random.Generator
    ) -> tuple[Tensor, State]:
        """The step `[d]`.

        Raises:
            InputError: half or more of the clients that answered may lie, or there are too many
                subsets.
        """
        n, f = len(updates), self.assumed_malicious
        refuse_majority(n, f)
        subsets = min(2**f, comb(n, f))
        if subsets > self.max_subsets:
            raise InputError(
                f"n={n} clients of which f={f} may lie make up to {subsets} subsets to look at, "
                f"above max_subsets={self.max_subsets}",
                "assumed_malicious",
                f,
            )
        kept = smallest_diameter(squared_distances(updates.matrix), f)
        share = kept.to(updates.matrix) / (n - f)
        return weighted_sum(share, updates.matrix), state


def smallest_diameter(squared: Tensor, f: int) -> Tensor:
    """The n - f rows whose largest distance is smallest: `[n]` bool.

    Args:
        squared: `[n, n]` squared distances between the rows, diagonal 0.
        f: how many rows to leave out.

    >>> smallest_diameter(torch.tensor([[0.0, 1.0, 9.0], [1.0, 0.0, 4.0], [9.0, 4.0, 0.0]]), 1)
    tensor([ True,  True, False])
    """
    if not f:
        return torch.ones(len(squared), dtype=torch.bool, device=squared.device)
    pairs = _farthest_pairs(squared, f)
    kept = torch.ones(1, len(squared), dtype=torch.bool, device=squared.device)
    for _ in range(f):
        one, other = pairs[:, _first_left(pairs, kept)]
        kept = torch.cat([_without(kept, one), _without(kept, other)]).unique(dim=0)
    one, other = pairs[:, _first_left(pairs, kept)]
    diameters = squared[one, other]
    kept = kept[diameters == diameters.min()]
    marks = kept.to(squared)
    # 0 times infinity is no number.
    countable = squared.clamp_max(torch.finfo(squared.dtype).max / len(squared) ** 2)
    return kept[((marks @ countable) * marks).sum(dim=1).argmin()]


def _farthest_pairs(squared: Tensor, f: int) -> Tensor:
    """`[2, p]`, the farthest first: so many pairs of rows that f rows are not in all of them."""
    n = len(squared)
    one, other = torch.triu_indices(n, n, 1, device=squared.device)
    order = squared[one, other].argsort(descending=True, stable=True)[: f * (n - 1) + 1]
    return torch.stack([one[order], other[order]])


def _first_left(pairs: Tensor, kept: Tensor) -> Tensor:
    """Of each subset `[s, n]` bool the place of its first pair, the farthest in it: `[s]`."""
    one, other = pairs
    blocks = kept.split(max(1, BLOCK_NUMBERS // len(one)))
    return torch.cat([(b[:, one] & b[:, other]).byte().argmax(dim=1) for b in blocks])


def _without(kept: Tensor, row: Tensor) -> Tensor:
    """The subsets `[s, n]` without the row named for each `[s]`."""
    return kept.scatter(1, row[:, None], False)
