"""Adaptive robust clipping (ARC): the longest rows are cut to the length of the next one.

    k = floor(2 f / n * (n - f));   y_j = delta_j * min(1, c / ||delta_j||)
    with c the (k + 1)-largest of the norms ||delta_1||, ..., ||delta_n||

The threshold follows the honest rows as training converges, and unlike a fixed one it keeps what
the rule behind guarantees. Source: Allouah, Guerraoui, Gupta, Jellouli, Rizk and Stephan, "Adaptive
Gradient Clipping for Robust Federated Learning", ICLR 2025 (arXiv:2405.14432). Breakdown point:
that of the rule behind it, up to f attackers with 2f < n.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from fedexp.core.checks import at_least, refuse_majority
from fedexp.core.norms import clip_factors, row_norms, scaled
from fedexp.core.types import Updates


@final
@dataclass(frozen=True)
class AdaptiveClipping:
    """The k longest rows scaled to the norm of the (k + 1)-longest: `[n, d]` to `[n, d]`.

    Args:
        assumed_malicious: f, how many of the clients that answer may lie; with 0 nothing is cut.

    Raises:
        InputError: half or more of the clients that answered may lie.

    >>> import torch
    >>> rows = torch.tensor([[3.0, 4.0], [24.0, 32.0], [1.0, 0.0]])
    >>> updates = Updates(rows, (0, 1, 2), torch.ones(3, dtype=torch.float64))
    >>> AdaptiveClipping(assumed_malicious=1)(updates, None).matrix
    tensor([[3., 4.],
            [3., 4.],
            [1., 0.]])
    """

    assumed_malicious: int

    def __post_init__(self) -> None:
        at_least(0, assumed_malicious=self.assumed_malicious)

    def __call__(self, updates: Updates, rng: np.random.Generator) -> Updates:
        """The clipped rows; draws nothing."""
        n, f = len(updates), self.assumed_malicious
        refuse_majority(n, f)
        if f == 0:
            return updates
        rows = updates.matrix
        norms = row_norms(rows)
        k = 2 * f * (n - f) // n
        limit = norms.sort(descending=True).values[k]
        return updates.with_matrix(scaled(rows, clip_factors(norms, limit)))
