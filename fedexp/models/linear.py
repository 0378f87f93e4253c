"""Logistic regression and multilayer perceptrons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from fedexp.core.checks import at_least


def logistic(input_shape: Sequence[int], num_classes: int) -> nn.Module:
    """Multinomial logistic regression on the pixels: `[n, C, H, W]` to logits `[n, classes]`.

    >>> sum(p.numel() for p in logistic((1, 28, 28), 10).parameters())
    7850
    """
    return mlp(input_shape, num_classes, hidden=())


def mlp(input_shape: Sequence[int], num_classes: int, hidden: Sequence[int]) -> nn.Module:
    """Fully connected layers with ReLU between them: `[n, C, H, W]` to logits `[n, classes]`.

    With `hidden=(200, 200)` on 28x28 images it is the 2NN of McMahan et al., "Communication-
    Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017, section 3.

    >>> sum(p.numel() for p in mlp((1, 28, 28), 10, hidden=(200, 200)).parameters())
    199210
    """
    for width in hidden:
        at_least(1, hidden=width)
    widths = [math.prod(input_shape), *hidden]
    layers: list[nn.Module] = [nn.Flatten()]
    for wide, narrow in pairwise(widths):
        layers += [nn.Linear(wide, narrow), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], num_classes))
