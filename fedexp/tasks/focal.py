"""Focal loss: what is answered well already counts for less.

    loss = (1 - p)^gamma (-log p),    p the probability that was given to the truth

gamma = 0 is cross-entropy. Source: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017,
equation 4; their alpha is a weight of the classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedexp.core.checks import non_negative, one_of

LOSSES = ("cross_entropy", "focal")


def gamma_of(loss: str, gamma: float) -> float:
    """The exponent of a loss: that of `focal`, 0 for `cross_entropy`.

    Raises:
        InputError: it is no such loss, or no such exponent.
    """
    one_of(LOSSES, loss=loss)
    non_negative(gamma=gamma)
    return gamma if loss == "focal" else 0.0


def focal(cross_entropy: Tensor, gamma: float) -> Tensor:
    """Of cross-entropies -log p, of any shape.

    >>> [round(x, 4) for x in focal(torch.tensor([0.5, 0.9]).log().neg(), gamma=2.0).tolist()]
    [0.1733, 0.0011]
    """
    if gamma == 0:
        return cross_entropy
    # Never 0, where the slope of a power below 1 is infinite.
    missing = (-torch.expm1(-cross_entropy)).clamp_min(torch.finfo(cross_entropy.dtype).tiny)
    focused: Tensor = missing.pow(gamma) * cross_entropy
    return focused
