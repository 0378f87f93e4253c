"""SignGuard: drop rows with an unusual norm or an unusual share of positive and negative signs.

    by norm: L M <= ||delta_k|| <= R M,   M = median_j ||delta_j||
    by sign: the largest cluster of (share positive, share zero, share negative) of delta_k at a
        random subset of coordinates
    step = mean of min(1, M / ||delta_k||) delta_k over the rows that pass both

Source: Xu, Huang, Song and Lan, "Byzantine-robust Federated Learning through Collaborative
Malicious Gradient Filtering" (SignGuard), ICDCS 2022, the plain variant; SignGuard-Sim and -Dist,
which add a similarity or a distance to the shares, are left out. The authors' code draws one block
of consecutive coordinates and divides each share by the largest; here coordinates are drawn one by
one and shares are used as they are. Where no row passes both, which the paper leaves open, the step
is zero: the model stays. Breakdown point: fewer than n / 2 attackers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
import torch
from torch import Tensor

from fedexp.aggregation.mean_shift import mean_shift, radius_of
from fedexp.core.checks import (
    InputError,
    at_least,
    in_range,
    non_negative,
    one_of,
    positive,
    refuse_majority,
)
from fedexp.core.norms import clip_factors, median, row_norms, weighted_sum
from fedexp.core.stateless import Stateless
from fedexp.core.types import State, Updates

AT_ONCE = 16_384  # coordinates


@final
@dataclass(frozen=True)
class SignGuard(Stateless):
    """The clipped mean of the rows that pass both filters: `[n, d]` to `[d]`.

    Args:
        assumed_malicious: how many of the clients that answer may lie; the rule does not use the
            number, but refuses where it could not hold (2f >= n).
        lowest_norm: L, as a multiple of the median norm.
        highest_norm: R, as a multiple of the median norm.
        coordinates: share of the coordinates whose signs are counted, above 0.
        clustering: "mean_shift" finds the number of clusters by itself, "kmeans" makes two.
        bandwidth_quantile: quantile of the distances between rows that mean shift takes as its
            radius.
    """

    assumed_malicious: int
    lowest_norm: float
    highest_norm: float
    coordinates: float
    clustering: Literal["mean_shift", "kmeans"]
    bandwidth_quantile: float

    def __post_init__(self) -> None:
        at_least(0, assumed_malicious=self.assumed_malicious)
        non_negative(lowest_norm=self.lowest_norm)
        positive(highest_norm=self.highest_norm, coordinates=self.coordinates)
        if self.lowest_norm > self.highest_norm:
            raise InputError(
                f"is above highest_norm={self.highest_norm}", "lowest_norm", self.lowest_norm
            )
        in_range(0, 1, coordinates=self.coordinates, bandwidth_quantile=self.bandwidth_quantile)
        one_of(("mean_shift", "kmeans"), clustering=self.clustering)

    def __call__(
        self, updates: Updates, state: State, rng: np.random.Generator
    ) -> tuple[Tensor, State]:
        """The step `[d]`."""
        matrix = updates.matrix
        n, d = matrix.shape
        refuse_majority(n, self.assumed_malicious)
        norms = row_norms(matrix)
        middle = median(norms)
        usual = (norms >= self.lowest_norm * middle) & (norms <= self.highest_norm * middle)

        drawn = np.sort(rng.choice(d, math.ceil(self.coordinates * d), replace=False))
        shares = sign_shares(matrix, torch.from_numpy(drawn).to(matrix.device))
        kept = usual & self._largest_cluster(shares, len(drawn), rng).to(matrix.device)

        factors = torch.where(kept, clip_factors(norms, middle), 0)
        return weighted_sum(factors / kept.sum().clamp_min(1), matrix), state

    def _largest_cluster(self, shares: Tensor, counted: int, rng: np.random.Generator) -> Tensor:
        """`[n]` bool: who is in the largest cluster of the points `shares` `[n, 3]`."""
        points = shares.cpu().numpy()
        if len(np.unique(points, axis=0)) == 1:
            return torch.ones(len(points), dtype=torch.bool)
        # Sorted, because ties and starting points must not depend on the order of the clients.
        order = np.lexsort(points.T)
        labels = np.empty(len(points), dtype=np.int64)
        if self.clustering == "kmeans":
            from sklearn.cluster import KMeans

            seed = int(rng.integers(2**31))
            labels[order] = KMeans(2, n_init=10, random_state=seed).fit_predict(points[order])
        else:
            radius = radius_of(points[order], self.bandwidth_quantile)
            # Shares are whole multiples of 1 / counted: a smaller radius would tell nobody apart.
            labels[order] = mean_shift(points[order], max(radius, 1 / counted))
        largest = np.bincount(labels[labels >= 0]).argmax()
        return torch.from_numpy(labels == largest)


def sign_shares(matrix: Tensor, columns: Tensor) -> Tensor:
    """Shares of positive, zero and negative values at `columns` of each row: `[n, 3]` float64.

    >>> sign_shares(torch.tensor([[5.0, 0.0, -1.0, -2.0, 9.0]]), torch.tensor([0, 1, 2, 3]))
    tensor([[0.2500, 0.2500, 0.5000]], dtype=torch.float64)
    """
    net = torch.zeros(len(matrix), dtype=torch.float64, device=matrix.device)
    moving = torch.zeros_like(net)
    for part in columns.split(AT_ONCE):
        signs = matrix.index_select(1, part).sign()
        net += signs.sum(dim=1)
        moving += signs.abs().sum(dim=1)
    counts = [(moving + net) / 2, len(columns) - moving, (moving - net) / 2]
    return torch.stack(counts, dim=1) / len(columns)
