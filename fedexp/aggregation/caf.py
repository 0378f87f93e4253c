"""CAF, the covariance-bound agnostic filter: drop weight along the direction of most variance.

    while sum_k c_k > n - 2f, from c_k = 1:
        mu = sum_k c_k delta_k / sum_k c_k
        lambda, v = top eigenpair of sum_k c_k (delta_k - mu)(delta_k - mu)' / sum_k c_k
        tau_k = <v, delta_k - mu>^2;   c_k <- c_k (1 - tau_k / max tau)
    step = the mu that had the smallest lambda

Source: Allouah, Guerraoui and Stephan, "Towards Trustworthy Federated Learning with Untrusted
Participants", ICML 2025, algorithm 2. Breakdown point: f attackers, 2f < n.

The d x d covariance is never formed: with p_k = c_k / sum c and K the Gram matrix of the rows minus
mu, its eigenvalues other than 0 are those of diag(p)^1/2 K diag(p)^1/2 `[n, n]`, and if u is an
eigenvector of that, tau is (K diag(p)^1/2 u)^2 up to a factor. The maximum of tau is taken over the
rows that have weight left, so every pass takes all weight from a row and there are at most 2f.

byzfl differs: it takes one step of the power method from a random vector for the eigenpair, which
makes its lambda random unless d = 1; it takes the maximum over all rows, so that a row long dropped
slows down the filter, for far outliers until it never ends; and for f = 0 it returns nothing, where
this rule is the mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from fedexp.core.checks import at_least, refuse_majority
from fedexp.core.geometry import centred_gram, refuse_uncountable
from fedexp.core.norms import weighted_sum
from fedexp.core.spectrum import top_eigenpair
from fedexp.core.stateless import Stateless
from fedexp.core.types import State, Updates


@final
@dataclass(frozen=True)
class CovarianceAgnosticFilter(Stateless):
    """A weighted mean with a small variance in every direction: `[n, d]` to `[d]`.

    Args:
        assumed_malicious: f, how many of the clients that answer may lie; with 0 it is the
            unweighted mean.
    """

    assumed_malicious: int

    def __post_init__(self) -> None:
        at_least(0, assumed_malicious=self.assumed_malicious)

    def __call__(
        self, updates: Updates, state: State, rng: np.random.Generator
    ) -> tuple[Tensor, State]:
        """The step `[d]`; raises InputError where half or more of the clients may lie."""
        n, f = len(updates), self.assumed_malicious
        refuse_majority(n, f)
        share = filtered_share(centred_gram(updates.matrix), f)
        return weighted_sum(share, updates.matrix), state


def filtered_share(gram: Tensor, f: int) -> Tensor:
    """What share of each row the filter's mean is made of: `[n]` float64, sums to 1.

    Args:
        gram: `[n, n]` float64, see `fedexp.core.geometry.centred_gram`.
        f: how many rows may lie, fewer than half.
    """
    refuse_uncountable(gram)
    n = len(gram)
    weights = torch.ones_like(gram[0])
    best, smallest = weights / n, torch.inf
    while float(weights.sum()) > n - 2 * f:
        share = weights / weights.sum()
        around_mean = _moved_to(gram, share)
        root = share.sqrt()
        variance, direction = top_eigenpair(root[:, None] * around_mean * root)
        if variance < smallest:
            best, smallest = share, variance
        tau = (around_mean @ (root * direction)).square()
        largest = tau[weights > 0].max()
        if float(largest) == 0:  # the rows that are left agree
            break
        weights = weights * (1 - tau / largest).clamp_min(0)
    return best


def _moved_to(gram: Tensor, share: Tensor) -> Tensor:
    """The Gram matrix `[n, n]` of the rows minus their mean weighted by `share` `[n]`."""
    with_mean = gram @ share
    return gram - with_mean[:, None] - with_mean[None, :] + share @ with_mean
