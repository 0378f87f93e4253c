"""Static clipping: no row is longer than a fixed length.

    y_k = delta_k * min(1, c / ||delta_k||)

Bounds what a single client can add to the step, whatever it sends, but not in which direction; the
right c differs between models and falls as training converges (see `adaptive_clipping`). Source:
Sun, Kairouz, Suresh and McMahan, "Can You Really Backdoor Federated Learning?", 2019
(arXiv:1911.07963), "norm thresholding". Breakdown point: that of the rule behind it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from fedexp.core.checks import positive
from fedexp.core.norms import clip_factors, row_norms, scaled
from fedexp.core.types import Updates


@final
@dataclass(frozen=True)
class Clipping:
    """Rows longer than `max_norm` scaled to it: `[n, d]` to `[n, d]`.

    Args:
        max_norm: c, Euclidean norm of a delta, in the units of the parameters.
    """

    max_norm: float

    def __post_init__(self) -> None:
        positive(max_norm=self.max_norm)

    def __call__(self, updates: Updates, rng: np.random.Generator) -> Updates:
        """The clipped rows; draws nothing."""
        rows = updates.matrix
        factors = clip_factors(row_norms(rows), self.max_norm)
        return updates.with_matrix(scaled(rows, factors))
