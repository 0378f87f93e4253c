"""Rows that no rule should see: of the wrong shape or type, not finite, or absurdly long.

A single NaN makes the mean NaN, and `argmin` over distances picks the row that is NaN: what is
broken has to go before any rule, whatever that rule withstands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch

from fedexp.core.checks import positive
from fedexp.core.types import Updates


@final
@dataclass(frozen=True)
class StandardValidation:
    """Rows must be float32, of the model's size and finite; and no longer than `norm_cap`.

    Args:
        norm_cap: the largest Euclidean norm of an update that passes; None for no limit.

    >>> rows = torch.tensor([[3.0, 4.0], [1.0, float("nan")], [30.0, 40.0]])
    >>> list(StandardValidation(norm_cap=10.0)(Updates(rows, (0, 1, 2), torch.ones(3)), d=2))
    ['', 'not finite', 'norm 50 above norm_cap=10']
    """

    norm_cap: float | None

    def __post_init__(self) -> None:
        if self.norm_cap is not None:
            positive(norm_cap=self.norm_cap)

    def __call__(self, updates: Updates, d: int) -> Sequence[str]:
        """For every row what is wrong with it, in words; "" for nothing."""
        matrix = updates.matrix
        if matrix.dim() != 2 or matrix.shape[1] != d:
            shape = "x".join(str(size) for size in matrix.shape[1:])
            return [f"{shape or 'no'} numbers instead of {d}"] * len(updates)
        if matrix.dtype != torch.float32:
            return [f"{matrix.dtype} instead of torch.float32"] * len(updates)
        # One pass: the norm is finite only where all numbers are, but for an overflow of the
        # squares, which only rows of more than 1e19 reach.
        norms = torch.linalg.vector_norm(matrix, dim=1)
        return [self._complaint(norm) for norm in norms.tolist()]

    def _complaint(self, norm: float) -> str:
        if not norm < float("inf"):  # NaN included
            return "not finite"
        if self.norm_cap is not None and norm > self.norm_cap:
            return f"norm {norm:.4g} above norm_cap={self.norm_cap:g}"
        return ""


@final
@dataclass(frozen=True)
class NoValidation:
    """Every row passes, to see what a rule does with broken ones."""

    def __call__(self, updates: Updates, d: int) -> Sequence[str]:
        """Nothing is wrong."""
        return [""] * len(updates)
