"""A broken client: every number that it sends is NaN, as after training that diverged.

    delta_k <- NaN

Knows: nothing. One such row makes a mean NaN, so that this is a test of the server's validation of
updates rather than of its rule.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
from torch import Tensor

from fedexp.attacks.base import LeavesData, with_malicious_rows
from fedexp.core.types import Rule, Updates


@final
@dataclass(frozen=True)
class Broken(LeavesData):
    """Put NaN in the malicious rows."""

    sees_other_clients: ClassVar[bool] = False

    def rewrite(
        self, updates: Updates, malicious: Tensor, rule: Rule, rng: np.random.Generator
    ) -> Updates:
        """New updates in which the malicious rows are NaN."""
        broken = updates.matrix.new_full((updates.matrix.shape[1],), math.nan)
        return with_malicious_rows(updates, malicious, broken)
