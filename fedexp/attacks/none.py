"""Nobody lies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from torch import Tensor

from fedexp.types import Split, Updates


@final
@dataclass(frozen=True)
class NoAttack:
    """Data and updates pass as they are."""

    def poison(self, data: Split, rng: np.random.Generator) -> Split:
        """The data unchanged."""
        return data

    def rewrite(self, updates: Updates, malicious: Tensor, rng: np.random.Generator) -> Updates:
        """The updates unchanged."""
        return updates
