"""FLAME: keep the densest majority of directions, clip it to the median norm, average, add noise.

    kept = the cluster that HDBSCAN finds in the cosine distances 1 - cos(delta_i, delta_j), with a
        least cluster size of floor(n / 2) + 1
    S = median over all n of ||delta_k||
    step = mean over kept of min(1, S / ||delta_k||) delta_k + N(0, (lambda S)^2 I)

Source: Nguyen et al., "FLAME: Taming Backdoors in Federated Learning", USENIX Security 2022,
algorithm 1. For (epsilon, delta) of differential privacy the paper has lambda = sqrt(2 ln(1.25 /
delta)) / epsilon, and sets lambda by experiment.

Difference: algorithm 1 takes the angles between whole local models, global model + delta, and here
they are taken between updates, which is all that a rule is given; whole models are nearly parallel
once the global model is long. As a cluster must hold a majority, there is exactly one: the first
component of more than n / 2 rows that single linkage forms over the mutual reachability distances.
That is often a bare majority: FLAME drops honest rows as well. Breakdown point: fewer than n / 2
attackers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from fedexp.core.checks import at_least, non_negative, refuse_majority
from fedexp.core.norms import clip_factors, cosines, gram, median, weighted_sum
from fedexp.core.stateless import Stateless
from fedexp.core.types import State, Updates


@final
@dataclass(frozen=True)
class Flame(Stateless):
    """The clipped mean of the majority cluster, with noise: `[n, d]` to `[d]`.

    Args:
        assumed_malicious: how many of the clients that answer may lie; the rule does not use the
            number, but refuses where it could not hold (2f >= n).
        neighbours: k, density at a row is measured by the distance to its k-th nearest other row;
            `min_samples` of the package hdbscan, and that of scikit-learn less 1, which counts the
            row itself.
        noise_factor: lambda, standard deviation of the noise on each coordinate as a multiple of
            the median norm; 0 adds none.
    """

    assumed_malicious: int
    neighbours: int
    noise_factor: float

    def __post_init__(self) -> None:
        at_least(0, assumed_malicious=self.assumed_malicious)
        at_least(1, neighbours=self.neighbours)
        non_negative(noise_factor=self.noise_factor)

    def __call__(
        self, updates: Updates, state: State, rng: np.random.Generator
    ) -> tuple[Tensor, State]:
        """The step `[d]`."""
        matrix = updates.matrix
        refuse_majority(len(updates), self.assumed_malicious)
        products = gram(matrix)
        norms = products.diagonal().sqrt()
        middle = median(norms)
        kept = majority_cluster(1 - cosines(products), self.neighbours).to(matrix.device)
        factors = torch.where(kept, clip_factors(norms, middle), 0)
        step = weighted_sum(factors / kept.sum(), matrix)
        if self.noise_factor > 0:
            noise = rng.standard_normal(len(step), dtype=np.float32)
            step += self.noise_factor * float(middle) * torch.from_numpy(noise).to(step.device)
        return step, state


def majority_cluster(distances: Tensor, neighbours: int) -> Tensor:
    """Who is in the one cluster of more than half of the rows: `[n, n]` to `[n]` bool.

    >>> ring = torch.ones(5, 5).fill_diagonal_(0)
    >>> ring[:3, :3] /= 10
    >>> majority_cluster(ring, neighbours=1)
    tensor([ True,  True,  True, False, False])
    """
    from sklearn.cluster import HDBSCAN

    n = len(distances)
    if n == 1:  # nothing to compare with
        return torch.ones(1, dtype=torch.bool)
    clustering = HDBSCAN(
        metric="precomputed",
        min_cluster_size=n // 2 + 1,
        min_samples=min(neighbours + 1, n),
        allow_single_cluster=True,
        copy=True,
    )
    apart = distances.clone().fill_diagonal_(0)
    return torch.from_numpy(clustering.fit_predict(apart.cpu().numpy()) >= 0)
