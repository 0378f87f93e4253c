"""Gaussian noise: a malicious client sends noise, or what it trained with noise on top.

    delta_k <- N(0, std^2 I)      or      delta_k <- delta_k + N(0, std^2 I)

Knows: its own data only. Every malicious client draws noise of its own; byzfl's Gaussian has one
draw, and a mean. Source: Blanchard, El Mhamdi, Guerraoui and Stainer, "Machine Learning with
Adversaries: Byzantine Tolerant Gradient Descent", NeurIPS 2017 (Gaussian workers).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
import torch
from torch import Tensor

from fedexp.attacks.base import LeavesData, with_malicious_rows
from fedexp.core.checks import positive
from fedexp.core.types import Rule, Updates


@final
@dataclass(frozen=True)
class Gaussian(LeavesData):
    """Replace the malicious rows by noise, or add noise to them.

    Args:
        std: standard deviation of every coordinate, in the units of an update.
        added: whether the noise goes on top of what the client trained.
    """

    sees_other_clients: ClassVar[bool] = False

    std: float
    added: bool

    def __post_init__(self) -> None:
        positive(std=self.std)

    def rewrite(
        self, updates: Updates, malicious: Tensor, rule: Rule, rng: np.random.Generator
    ) -> Updates:
        """New updates with noise in the malicious rows."""
        own = updates.matrix[malicious]
        noise = torch.from_numpy(rng.standard_normal(own.shape, dtype=np.float32)).to(own)
        noise *= self.std
        return with_malicious_rows(updates, malicious, own.add_(noise) if self.added else noise)
