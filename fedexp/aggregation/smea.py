"""SMEA, smallest maximum eigenvalue averaging: the rows that vary least in their worst direction.

    step = mean of S,   S = argmin over |S| = n - f of lambda_max(covariance of S)

where the covariance of S is the mean over k in S of (delta_k - mean of S)(delta_k - mean of S)'.
Every subset is looked at. The d x d covariance is never formed: its largest eigenvalue is that of
the Gram matrix of the n - f rows minus their mean, divided by n - f.

Source: Allouah, Guerraoui, Gupta, Pinot and Stephan, "On the Privacy-Robustness-Utility Trilemma in
Distributed Learning", ICML 2023. byzfl takes one step of the power method from a random vector,
and what it compares scales with the cosine between that vector and the eigenvector: unless d = 1 it
chooses another subset from call to call. Here eigenvalues are exact, and the first subset in the
order of the clients is taken only where two are equal to the last bit.
Breakdown point: f attackers, 2f < n.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, islice
from math import comb
from typing import final

import numpy as np
import torch
from torch import Tensor

from fedexp.core.checks import InputError, at_least, refuse_majority
from fedexp.core.geometry import centred_gram, refuse_uncountable
from fedexp.core.norms import weighted_sum
from fedexp.core.stateless import Stateless
from fedexp.core.types import State, Updates

BLOCK_NUMBERS = 2**20  # numbers in the Gram matrices that are solved together, 8 MiB


@final
@dataclass(frozen=True)
class SmallestMaximumEigenvalueAveraging(Stateless):
    """The mean of the n - f rows with the smallest top eigenvalue: `[n, d]` to `[d]`.

    Args:
        assumed_malicious: f, how many of the clients that answer may lie.
        max_subsets: the most subsets to look at, C(n, f); more are refused.
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
        if comb(n, f) > self.max_subsets:
            raise InputError(
                f"n={n} clients of which f={f} may lie make C({n}, {f})={comb(n, f)} subsets to "
                f"look at, above max_subsets={self.max_subsets}",
                "assumed_malicious",
                f,
            )
        matrix = updates.matrix
        best = smallest_top_eigenvalue(centred_gram(matrix), n - f)
        share = matrix.new_zeros(n).index_fill_(0, best, 1 / (n - f))
        return weighted_sum(share, matrix), state


def smallest_top_eigenvalue(gram: Tensor, size: int) -> Tensor:
    """The `size` rows whose covariance has the smallest top eigenvalue: `[size]` int64, sorted.

    Args:
        gram: `[n, n]` float64, see `fedexp.core.geometry.centred_gram`.
        size: how many rows to keep, at least 1.
    """
    refuse_uncountable(gram)
    best, smallest = torch.arange(size, device=gram.device), torch.inf
    for subsets in _subsets(len(gram), size):
        rows = subsets.to(gram.device)
        part = gram[rows[:, :, None], rows[:, None, :]]
        means = part.mean(dim=1, keepdim=True)
        around_mean = part - means - means.mT + means.mean(dim=2, keepdim=True)
        top = torch.linalg.eigvalsh(around_mean)[:, -1]
        first = int(top.argmin())
        if float(top[first]) < smallest:
            best, smallest = rows[first], float(top[first])
    return best


def _subsets(n: int, size: int) -> Iterator[Tensor]:
    """All subsets of `size` of n rows, in blocks `[b, size]` of bounded memory."""
    every = combinations(range(n), size)
    while block := list(islice(every, max(1, BLOCK_NUMBERS // size**2))):
        yield torch.tensor(block)
