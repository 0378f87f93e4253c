"""Mimic: the attackers all copy one honest client, so that its data count many times over.

    delta_k <- x_i,   i = argmax_i |<x_i - m, u>|

x_1..x_h are the honest rows, m their mean, u the direction in which they differ most (the top
principal direction). Such a row is nothing out of the ordinary; it hurts where clients differ.

Knows: the honest updates of this round. Source: Karimireddy, He and Jaggi, "Byzantine-Robust
Learning on Heterogeneous Datasets via Bucketing", ICLR 2022 (the mimic attack).

The paper estimates u over the rounds of a warm-up (Oja's rule from a random start, which decides
u's sign) and then keeps to the client found; ours takes u from this round's rows, exactly, and the
furthest client on either side, so that the client may change from round to round. Give `client` to
keep to one, which is what byzfl does with its epsilon (a position among the honest).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from fedexp.attacks.base import LeavesData, with_malicious_rows
from fedexp.attacks.honest import centred_gram, known_rows
from fedexp.core.checks import at_least
from fedexp.core.types import Rule, Updates


@final
@dataclass(frozen=True)
class Mimic(LeavesData):
    """Every malicious client sends what one honest client sends.

    Args:
        client: number of the client to copy in the rounds that it answers as an honest one; in the
            others, and for None, the one that differs most.
    """

    client: int | None

    def __post_init__(self) -> None:
        if self.client is not None:
            at_least(0, client=self.client)

    def rewrite(
        self, updates: Updates, malicious: Tensor, rule: Rule, rng: np.random.Generator
    ) -> Updates:
        """New updates with one and the same row for all malicious clients."""
        if not malicious.any():
            return updates
        for k, client in enumerate(updates.client_ids):
            if client == self.client and not malicious[k]:
                return with_malicious_rows(updates, malicious, updates.matrix[k])
        rows = known_rows(updates, malicious)
        return with_malicious_rows(updates, malicious, rows[most_different(rows)])


def most_different(rows: Tensor) -> int:
    """Which row lies furthest out along the top principal direction of `[h, d]`.

    >>> most_different(torch.tensor([[0.0, 1.0], [0.0, -1.0], [9.0, 0.0]]))
    2
    """
    gram = centred_gram(rows)
    if not gram.isfinite().all():
        return 0
    # <x_i - m, u> is the i-th entry of the Gram matrix's top eigenvector, times a constant.
    return int(torch.linalg.eigh(gram).eigenvectors[:, -1].abs().argmax())
