"""How sure a model is of an example's class, as RMIA counts it: the soft-margin Taylor softmax.

    p(x, y) = e(z_y / T - m) / (e(z_y / T - m) + sum over k != y of e(z_k / T))
    e(t)    = 1 + t + t^2 / 2 + ... + t^order / order!,    or exp(t) itself

z being the model's logits. Softmax (T = 1, m = 0, exp) is near 1 for whatever a model has learned
by heart and tells nothing apart there; with a temperature, a margin and a polynomial in the place
of the exponential it does not saturate. A polynomial takes logits as they are: unlike softmax, it
is another after all of them have moved by a constant.

Sources: Zarifzadeh, Liu and Shokri, "Low-Cost High-Power Membership Inference Attacks", ICML 2024
(T = 2, m = 0.6, order 4 in their code); Banerjee et al., "Exploring Alternatives to Softmax
Function", 2020.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from fedexp.core.checks import InputError, non_negative, positive


@final
@dataclass(frozen=True)
class Confidence:
    """log p(x, y) of every example; with its defaults the logarithm of softmax.

    Args:
        temperature: T, above 0.
        margin: m, at least 0: by how much the class has to be ahead.
        order: of the polynomial, even, so that no p is negative; None for the exponential itself.

    >>> z, y = torch.tensor([[0.0, 0.0]]).double(), torch.tensor([0])
    >>> Confidence()(z, y).round(4).tolist()  # p = 1/2
    [-0.6931]
    >>> Confidence(margin=1, order=2)(z, y).round(4).tolist()  # p = 1/2 / (1/2 + 1)
    [-1.0986]
    """

    temperature: float = 1.0
    margin: float = 0.0
    order: int | None = None

    def __post_init__(self) -> None:
        positive(temperature=self.temperature)
        non_negative(margin=self.margin)
        order = self.order
        if order is not None and (type(order) is not int or order < 2 or order % 2):
            reason = "must be an even number, 2 or above, or null for the exponential"
            raise InputError(reason, "order", order)

    def __call__(self, logits: Tensor, y: Tensor) -> np.ndarray:
        """`[n]` float64, of logits `[n, classes]` and classes `[n]`."""
        z = logits.double() / self.temperature
        truth = torch.nn.functional.one_hot(y, z.shape[1]).bool()
        terms = self._log_e(torch.where(truth, z - self.margin, z))
        log_p: np.ndarray = (terms[truth] - terms.logsumexp(dim=1)).numpy()
        return log_p

    def _log_e(self, t: Tensor) -> Tensor:
        if self.order is None:
            return t
        return sum(t**k / math.factorial(k) for k in range(self.order + 1)).log()  # type: ignore[union-attr]
