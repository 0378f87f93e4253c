"""What SGD's steps make of their gradients, as numbers: for whoever reads an update.

    v <- momentum v + g_t + weight_decay w_t + proximal (w_t - w_0),     w_(t+1) = w_t - lr v

All of it is linear, so that E steps from w_0 with gradients g_0..g_(E-1) end at

    delta = w_E - w_0 = - sum_t c_t g_t - drift w_0

where c_t and drift need no gradient to be known: c_t = lr and drift = 0 for plain steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np


@final
@dataclass(frozen=True)
class StepRule:
    """The four numbers of a step.

    >>> StepRule(lr=0.5).unrolled(3)
    ([0.5, 0.5, 0.5], 0.0)
    >>> StepRule(lr=0.5, weight_decay=1.0).unrolled(2)  # w halves in each step
    ([0.25, 0.5], 0.75)
    """

    lr: float
    momentum: float = 0.0
    weight_decay: float = 0.0
    proximal: float = 0.0

    def unrolled(self, steps: int) -> tuple[list[float], float]:
        """What each of `steps` gradients weighs in the way that was gone, and the drift."""
        # Coordinates: the gradients, then w_0. The way gone so far, and the velocity.
        gone, velocity = np.zeros(steps + 1), np.zeros(steps + 1)
        start = np.eye(steps + 1)[-1]
        for step in range(steps):
            here = start - gone
            velocity *= self.momentum
            velocity += np.eye(steps + 1)[step] + self.weight_decay * here - self.proximal * gone
            gone = gone + self.lr * velocity
        return gone[:-1].tolist(), float(gone[-1])

    def __str__(self) -> str:
        """For a reader.

        >>> print(StepRule(lr=0.1), StepRule(lr=0.1, momentum=0.9), sep="; ")
        learning rate 0.1; learning rate 0.1, momentum 0.9
        """
        terms = {
            "momentum": self.momentum,
            "weight decay": self.weight_decay,
            "proximal term": self.proximal,
        }
        known = [f"{name} {value:g}" for name, value in terms.items() if value]
        return ", ".join([f"learning rate {self.lr:g}", *known])
