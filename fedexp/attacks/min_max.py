"""Min-Max and Min-Sum: as far from the honest mean as the honest rows are from each other.

    delta_k <- m + gamma * p        m: the mean of the honest rows x_1..x_h,  p: a direction
    Min-Max: the largest gamma with  max_i ||delta_k - x_i|| <= max_ij ||x_i - x_j||
    Min-Sum: the largest gamma with  sum_i ||delta_k - x_i||^2 <= max_i sum_j ||x_i - x_j||^2

p is -m / ||m|| (unit_vector), -sign(m) (sign), or the deviation of every coordinate, upwards (std)
or downwards (std_down). The authors' code subtracts deviations from gradients; a delta is minus the
learning rate times a gradient, so that theirs is `std`. The other two mean the same in both terms.

Knows: the honest updates of this round, not the rule (AGR-agnostic). Source: Shejwalkar and
Houmansadr, "Manipulating the Byzantine: Optimizing Model Poisoning Attacks and Defenses for
Federated Learning", NDSS 2021, algorithm 1.

The paper searches gamma by halving steps, which comes within tau of the largest one if that is near
enough to the first guess. Both conditions are quadratic in gamma, so that ours is exact and needs
neither: with u = p / ||p||, c_i = x_i - m and D the largest distance,

    Min-Max: gamma ||p|| = min_i (u c_i + sqrt((u c_i)^2 + D^2 - ||c_i||^2))
    Min-Sum: gamma ||p|| = max_i ||c_i||,   for the c_i sum to 0
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
import torch
from torch import Tensor

from fedexp.attacks.base import LeavesData, with_malicious_rows
from fedexp.attacks.honest import (
    centred_chunks,
    known_rows,
    mean_and_deviation,
)
from fedexp.core.checks import one_of
from fedexp.core.geometry import squared_distances
from fedexp.core.types import Rule, Updates

Perturbation = Literal["unit_vector", "std", "std_down", "sign"]
PERTURBATIONS = ("unit_vector", "std", "std_down", "sign")


@final
@dataclass(frozen=True)
class MinMax(LeavesData):
    """No further from any honest row than the two honest rows that are furthest apart.

    Args:
        perturbation: p, the direction away from the honest mean.
    """

    perturbation: Perturbation

    def __post_init__(self) -> None:
        one_of(PERTURBATIONS, perturbation=self.perturbation)

    def rewrite(
        self, updates: Updates, malicious: Tensor, rule: Rule, rng: np.random.Generator
    ) -> Updates:
        """New updates with one and the same row for all malicious clients."""
        return pushed_away(updates, malicious, self.perturbation, _reach_by_largest_distance)


@final
@dataclass(frozen=True)
class MinSum(LeavesData):
    """No further from the honest rows in sum than the honest row that is furthest from them.

    Args:
        perturbation: p, the direction away from the honest mean.
    """

    perturbation: Perturbation

    def __post_init__(self) -> None:
        one_of(PERTURBATIONS, perturbation=self.perturbation)

    def rewrite(
        self, updates: Updates, malicious: Tensor, rule: Rule, rng: np.random.Generator
    ) -> Updates:
        """New updates with one and the same row for all malicious clients."""
        return pushed_away(updates, malicious, self.perturbation, _reach_by_sum_of_distances)


def pushed_away(
    updates: Updates,
    malicious: Tensor,
    perturbation: Perturbation,
    reach: Callable[[Tensor, Tensor], Tensor],
) -> Updates:
    """The malicious rows at the honest mean plus `reach(honest rows, direction)` directions."""
    if not malicious.any():
        return updates
    rows = known_rows(updates, malicious)
    mean, direction = mean_and_direction(rows, perturbation)
    return with_malicious_rows(updates, malicious, mean + float(reach(rows, direction)) * direction)


def _reach_by_largest_distance(rows: Tensor, direction: Tensor) -> Tensor:
    along = torch.zeros(len(rows), dtype=torch.float64, device=rows.device)
    squares = torch.zeros_like(along)
    for columns, _, centred in centred_chunks(rows):
        along += centred @ direction[columns]
        squares += centred.square_().sum(dim=1)
    # No row is further from the mean than from another; of rows that are all the same rounding is.
    room = (squared_distances(rows).max() - squares).clamp_min_(0)
    return (along + (along.square() + room).sqrt()).min()


def _reach_by_sum_of_distances(rows: Tensor, direction: Tensor) -> Tensor:
    squares = torch.zeros(len(rows), dtype=torch.float64, device=rows.device)
    for _, _, centred in centred_chunks(rows):
        squares += centred.square_().sum(dim=1)
    return squares.max().sqrt()


def mean_and_direction(rows: Tensor, perturbation: Perturbation) -> tuple[Tensor, Tensor]:
    """The mean m and p / ||p||, `[d]` each; a direction that vanishes stays 0.

    >>> mean_and_direction(torch.tensor([[3.0, 4.0]]), "unit_vector")
    (tensor([3., 4.]), tensor([-0.6000, -0.8000]))
    """
    mean, deviation = mean_and_deviation(rows)
    away = {
        "unit_vector": -mean,
        "std": deviation,
        "std_down": -deviation,
        "sign": -mean.sign(),
    }[perturbation]
    length = torch.linalg.vector_norm(away)
    return mean, away / length if length > 0 else torch.zeros_like(away)
