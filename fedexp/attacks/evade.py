"""Evasion of detectors that look at angles: agree with the cohort as ever, and flip all the rest.

    delta_k <- scale (k p - (delta_k - p)),   p = <delta_k, c> c,   c: the honest mean direction

What a malicious client trained is taken apart into what it has in common with the honest clients
and what it has not; the first is kept (k of it), the second is turned around. With keep = 1 and
scale = 1 the row has the length of an honest one and the same angle to the others' mean, and a
client that does so from the first round on has no other past: `detector=consistency` has nothing to
see. The price is the harm: what honest clients agree on is not attacked.

Knows: the honest rows of the round. The idea of attacks that stay below a detector's threshold is
that of Fang, Cao, Jia and Gong, "Local Model Poisoning Attacks to Byzantine-Robust Federated
Learning", USENIX Security 2020; the attack is ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from fedexp.attacks.base import LeavesData, with_malicious_rows
from fedexp.attacks.honest import known_rows
from fedexp.core.checks import non_negative, positive
from fedexp.core.types import Rule, Updates


@final
@dataclass(frozen=True)
class Evade(LeavesData):
    """Turn around what is not shared with the honest clients.

    Args:
        keep: k, share of what is shared that is kept; 0 keeps nothing, and agrees with nobody.
        scale: factor on the row.
    """

    keep: float
    scale: float

    def __post_init__(self) -> None:
        non_negative(keep=self.keep)
        positive(scale=self.scale)

    def rewrite(
        self, updates: Updates, malicious: Tensor, rule: Rule, rng: np.random.Generator
    ) -> Updates:
        """New updates with the malicious rows turned around as far as it does not show."""
        if not malicious.any():
            return updates
        honest, own = known_rows(updates, malicious), updates.matrix[malicious]
        lengths = torch.linalg.vector_norm(honest, dim=1, keepdim=True).clamp_min(1e-30)
        centre = (honest / lengths).mean(dim=0)
        centre = centre / torch.linalg.vector_norm(centre).clamp_min(1e-30)
        shared = (own @ centre)[:, None] * centre
        rows = self.scale * (self.keep * shared - (own - shared))
        return with_malicious_rows(updates, malicious, rows)
