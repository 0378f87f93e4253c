"""ALIE ("a little is enough"): the attackers agree on a row that stays within the honest spread.

    delta_k <- m + z * sigma        m, sigma: mean and deviation of every coordinate, honest rows
    z = Phi^-1((n - f - s) / (n - f)),   s = floor(n / 2 + 1) - f

n clients answered, f of them malicious; with the s honest ones that lie further out than z on that
side the f attackers are a majority. Phi is the normal distribution function.

Knows: the honest updates of this round; the paper's adversary estimates m and sigma from what its
own clients trained. Source: Baruch, Baruch and Goldberg, "A Little Is Enough: Circumventing
Defenses For Distributed Learning", NeurIPS 2019, algorithm 3.

Direction: the authors subtract z deviations from gradients. A delta is minus the learning rate
times a gradient, so that here they are added and every weight moves up, which is what `up` means;
`down` is the other way. A deviation has no sign, so the two are different attacks, and a network of
ReLUs suffers from them unevenly. byzfl adds to gradients, which is `down` here. Deviation: unbiased
(h - 1), as in byzfl; the authors' code divides by h. The formula gives z > 0 only from f = 3 on (f
= 2 where n is odd), and none at all where the attackers are a majority by themselves (then s = 1 is
taken) or where the s supporters would be everybody (then z = 0, the mean).
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal, final

import numpy as np
from torch import Tensor

from fedexp.attacks.base import LeavesData, with_malicious_rows
from fedexp.attacks.honest import known_rows, mean_and_deviation
from fedexp.core.checks import in_range, one_of
from fedexp.core.types import Rule, Updates

Direction = Literal["up", "down"]
DIRECTIONS = {"up": 1, "down": -1}  # of the weights


@final
@dataclass(frozen=True)
class Alie(LeavesData):
    """Every malicious client sends m + z * sigma.

    Args:
        z: deviations from the mean; None takes the paper's formula with n and f of the round.
        direction: "up" adds them to the deltas, as the authors' code does in its own terms; "down"
            subtracts them.
    """

    z: float | None
    direction: Direction

    def __post_init__(self) -> None:
        check_z(self.z)
        one_of(tuple(DIRECTIONS), direction=self.direction)

    def rewrite(
        self, updates: Updates, malicious: Tensor, rule: Rule, rng: np.random.Generator
    ) -> Updates:
        """New updates with one and the same row for all malicious clients."""
        if not malicious.any():
            return updates
        mean, deviation = mean_and_deviation(known_rows(updates, malicious))
        z = formula_z(len(updates), int(malicious.sum())) if self.z is None else self.z
        return with_malicious_rows(
            updates, malicious, mean + DIRECTIONS[self.direction] * z * deviation
        )


def check_z(z: float | None) -> None:
    """Refuse what is no sensible number of deviations."""
    if z is not None:
        in_range(-1000, 1000, z=z)


def formula_z(n: int, f: int) -> float:
    """How many deviations n clients, f of them malicious, can hide (algorithm 3 of the paper).

    >>> round(formula_z(50, 24), 2)  # the paper's example: s = 2, Phi(z) = 24 / 26
    1.43
    """
    honest = n - f
    supporters = max(n // 2 + 1 - f, 1)
    return NormalDist().inv_cdf((honest - supporters) / honest) if honest > supporters else 0.0
