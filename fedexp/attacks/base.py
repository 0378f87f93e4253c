"""The seam that an attack does not use: most change either the data or the rows, not both."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from fedexp.core.examples import Split
from fedexp.core.types import Rule, Updates


class LeavesData:
    """An attack on updates only: its clients train on their own data and want no answer."""

    targets_by_example: ClassVar[bool] = True

    def poison(self, data: Split, rng: np.random.Generator) -> Split:
        """The data unchanged."""
        return data

    def targeted_examples(self, data: Split) -> Split:
        """Empty: the adversary wants no answer in particular."""
        return data.rows(torch.empty(0, dtype=torch.int64))


class LeavesRows:
    """An attack on data only: its clients send what they trained."""

    def rewrite(
        self, updates: Updates, malicious: Tensor, rule: Rule, rng: np.random.Generator
    ) -> Updates:
        """The rows unchanged."""
        return updates


def with_malicious_rows(updates: Updates, malicious: Tensor, rows: Tensor) -> Updates:
    """The updates with `rows` `[m, d]`, or one row `[d]` for all, where `malicious` marks them."""
    matrix = updates.matrix.clone()
    matrix[malicious] = rows.to(matrix)
    return updates.with_matrix(matrix)
