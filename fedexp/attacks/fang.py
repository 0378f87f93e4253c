"""Fang et al.: rows made for one rule, so that the step goes against the honest direction.

Trimmed mean and median: every coordinate beyond the extreme honest value on the wrong side,

    delta_kj uniform between e_j and (e_j * b where that is further out, else e_j / b)
    e_j = min_i x_ij where the mean of x_ij is above 0, else max_i x_ij

Krum: the largest step against the direction s that Krum still selects,

    delta_k = -lambda * s,   s = sign of the row that Krum selects without the attack
    lambda <= (sqrt(min_i sum ||x_i - x_j||^2 / (n - 2f - 1)) + max_i ||x_i||) / ||s||

with the sum over the n - f - 2 honest x_j nearest to x_i; from there lambda is halved until Krum
selects the malicious row. x_1..x_h: the honest rows, n clients answered, f of them malicious.

Knows: the honest updates of this round, and the family of the rule (that it is Krum, and with the
true f); the rule itself is not asked. Source: Fang, Cao, Jia and Gong, "Local Model Poisoning
Attacks to Byzantine-Robust Federated Learning", USENIX Security 2020 (attacking Krum, theorem 1;
attacking trimmed mean and median), the full-knowledge case.

The paper states both for parameters; here they are stated for updates, in which the global model
(w_Re) is 0. Our direction comes from the honest rows alone, the paper's also from what the
malicious clients trained. For Krum all malicious rows are equal, where the paper spreads all but
one of them a little.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from fedexp.attacks.base import LeavesData, with_malicious_rows
from fedexp.attacks.honest import known_rows
from fedexp.core.checks import in_range, positive
from fedexp.core.geometry import squared_distances
from fedexp.core.types import Rule, Updates


@final
@dataclass(frozen=True)
class FangTrimmedMean(LeavesData):
    """Every malicious client draws each coordinate just outside the honest range.

    Args:
        b: how far out: up to b times the extreme honest value, or down to 1 / b of it where the
            way out leads through 0. At least 1, where all send the extreme value itself.
    """

    b: float

    def __post_init__(self) -> None:
        in_range(1, 1000, b=self.b)

    def rewrite(
        self, updates: Updates, malicious: Tensor, rule: Rule, rng: np.random.Generator
    ) -> Updates:
        """New updates with a row of its own for each malicious client."""
        if not malicious.any():
            return updates
        rows = known_rows(updates, malicious)
        lowest, highest = rows.aminmax(dim=0)
        rising = rows.mean(dim=0) > 0
        extreme = torch.where(rising, lowest, highest)
        towards_zero = torch.where(rising, lowest > 0, highest <= 0)
        end = torch.where(towards_zero, extreme / self.b, extreme * self.b)
        shape = int(malicious.sum()), rows.shape[1]
        crafted = torch.from_numpy(rng.random(shape, dtype=np.float32)).to(rows)
        return with_malicious_rows(updates, malicious, crafted.mul_(end - extreme).add_(extreme))


@final
@dataclass(frozen=True)
class FangKrum(LeavesData):
    """Every malicious client sends the largest wrong step that Krum would select.

    Where Krum selects none of them, or is not defined (n < 2f + 3), they send the last one tried.

    Args:
        threshold: lambda below which the halving ends.
    """

    threshold: float

    def __post_init__(self) -> None:
        positive(threshold=self.threshold)

    def rewrite(
        self, updates: Updates, malicious: Tensor, rule: Rule, rng: np.random.Generator
    ) -> Updates:
        """New updates with one and the same row for all malicious clients."""
        if not malicious.any():
            return updates
        rows, attackers = known_rows(updates, malicious), int(malicious.sum())
        between = squared_distances(rows).fill_diagonal_(torch.inf)
        neighbours = max(len(rows) - 2, 0)  # n - f - 2
        honest_scores = sum_of_smallest(between, neighbours)

        direction = rows[honest_scores.argmin()].sign()
        size = float(torch.linalg.vector_norm(direction, dtype=torch.float64))
        squares = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64).square()
        along = (rows @ direction).double()

        spread = honest_scores.min() / max(len(rows) - attackers - 1, 1)  # n - 2f - 1
        bound = float(spread.sqrt() + squares.max().sqrt())
        step = bound / size if size > 0 else 0.0
        while step > self.threshold:
            to_malicious = squares + 2 * step * along + (step * size) ** 2
            if krum_selects_malicious(between, to_malicious, attackers, neighbours):
                break
            step /= 2
        return with_malicious_rows(updates, malicious, -step * direction)


def krum_selects_malicious(
    between: Tensor, to_malicious: Tensor, attackers: int, neighbours: int
) -> bool:
    """Whether Krum prefers one of `attackers` equal rows to every honest one.

    Args:
        between: squared distances between honest rows, `[h, h]` with an infinite diagonal.
        to_malicious: squared distances of the honest rows to the malicious one, `[h]`.
        attackers: how many times the malicious row is sent.
        neighbours: distances in a Krum score.
    """
    to_all = torch.cat([between, to_malicious[:, None].expand(-1, attackers)], dim=1)
    from_malicious = torch.cat([to_malicious.new_zeros(attackers - 1), to_malicious])
    honest = sum_of_smallest(to_all, neighbours).min()
    return bool(sum_of_smallest(from_malicious, neighbours) < honest)


def sum_of_smallest(values: Tensor, k: int) -> Tensor:
    """Sum of the k smallest values along the last dimension.

    >>> sum_of_smallest(torch.tensor([[4.0, 1.0, 2.0]]), 2)
    tensor([3.])
    """
    return values.sort(dim=-1).values[..., :k].sum(dim=-1)
