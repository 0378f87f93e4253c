"""Free rider: a client that trains nothing and sends back the model that it received.

    delta_k <- 0

Knows: nothing. Source: Fraboni, Vidal and Lorenzi, "Free-rider Attacks on Model Aggregation in
Federated Learning", AISTATS 2021 (plain free-riding).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
from torch import Tensor

from fedexp.attacks.base import LeavesData, with_malicious_rows
from fedexp.core.types import Rule, Updates


@final
@dataclass(frozen=True)
class FreeRider(LeavesData):
    """Put zeros in the malicious rows."""

    sees_other_clients: ClassVar[bool] = False

    def rewrite(
        self, updates: Updates, malicious: Tensor, rule: Rule, rng: np.random.Generator
    ) -> Updates:
        """New updates in which the malicious rows are 0."""
        nothing = updates.matrix.new_zeros(updates.matrix.shape[1])
        return with_malicious_rows(updates, malicious, nothing)
