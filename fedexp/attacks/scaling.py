"""Scaling (boosting, model replacement): a malicious client sends a multiple of what it trained.

    delta_k <- factor * delta_k,   factor = n / f unless given

n clients answered, f of them malicious. In a mean of equal weights the factor n / f makes up for
the n - f others: near convergence, where these cancel out, the f together put their own model in
the place of the global one. It is how a backdoor trained into the data gets through.

Knows: its own data, and how many clients answered. Source: Bagdasaryan, Veit, Hua, Estrin and
Shmatikov, "How To Backdoor Federated Learning", AISTATS 2020 (one attacker, gamma =
n / eta there; the server's learning rate eta is 1 here).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from torch import Tensor

from fedexp.attacks.base import LeavesData, with_malicious_rows
from fedexp.core.checks import positive
from fedexp.core.types import Rule, Updates


@final
@dataclass(frozen=True)
class Scaling(LeavesData):
    """Multiply the malicious rows by a factor.

    Args:
        factor: None takes n / f of the round.
    """

    factor: float | None

    def __post_init__(self) -> None:
        if self.factor is not None:
            positive(factor=self.factor)

    @property
    def sees_other_clients(self) -> bool:
        """How many they are, where the factor depends on it."""
        return self.factor is None

    def rewrite(
        self, updates: Updates, malicious: Tensor, rule: Rule, rng: np.random.Generator
    ) -> Updates:
        """New updates with the malicious rows scaled."""
        factor = self.factor
        if factor is None:
            factor = len(updates) / max(int(malicious.sum()), 1)
        return with_malicious_rows(updates, malicious, factor * updates.matrix[malicious])
