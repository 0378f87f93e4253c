"""Inner product manipulation: the attackers send a small step the wrong way.

    delta_k <- -epsilon * m,        m: the mean of the honest rows

Knows: the honest updates of this round. A small epsilon (0.1) hides near the honest rows and aims
at rules that select or take a median; a mean is turned around by epsilon > (n - f) / f, of n
clients f malicious. Source: Xie, Koyejo and Gupta, "Fall of Empires: Breaking Byzantine-tolerant
SGD by Inner Product Manipulation", UAI 2019. byzfl calls epsilon tau, and the case
epsilon = 1 SignFlipping (our sign_flip is each client's own row instead).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from torch import Tensor

from fedexp.attacks.base import LeavesData, with_malicious_rows
from fedexp.attacks.honest import known_rows
from fedexp.core.checks import positive
from fedexp.core.types import Rule, Updates


@final
@dataclass(frozen=True)
class Ipm(LeavesData):
    """Every malicious client sends the honest mean times -epsilon.

    Args:
        epsilon: length of the wrong step, in lengths of the honest mean.
    """

    epsilon: float

    def __post_init__(self) -> None:
        positive(epsilon=self.epsilon)

    def rewrite(
        self, updates: Updates, malicious: Tensor, rule: Rule, rng: np.random.Generator
    ) -> Updates:
        """New updates with one and the same row for all malicious clients."""
        if not malicious.any():
            return updates
        mean = known_rows(updates, malicious).mean(dim=0)
        return with_malicious_rows(updates, malicious, -self.epsilon * mean)
