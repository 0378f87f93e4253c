"""Sign flip: a malicious client trains honestly and sends the opposite.

    delta_k <- -scale * delta_k

Knows: its own data only. Source: Li, Xu, Chen, Giannakis and Ling, "RSA: Byzantine-Robust
Stochastic Aggregation Methods", AAAI 2019, section 5 (sign-flipping, with a factor of -4 there).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
from torch import Tensor

from fedexp.attacks.base import LeavesData, with_malicious_rows
from fedexp.core.checks import positive
from fedexp.core.types import Rule, Updates


@final
@dataclass(frozen=True)
class SignFlip(LeavesData):
    """Multiply the malicious rows by -scale.

    Args:
        scale: 1 sends the exact opposite; more outvotes more honest clients in a mean.
    """

    sees_other_clients: ClassVar[bool] = False

    scale: float

    def __post_init__(self) -> None:
        positive(scale=self.scale)

    def rewrite(
        self, updates: Updates, malicious: Tensor, rule: Rule, rng: np.random.Generator
    ) -> Updates:
        """New updates with the malicious rows flipped."""
        return with_malicious_rows(updates, malicious, -self.scale * updates.matrix[malicious])
