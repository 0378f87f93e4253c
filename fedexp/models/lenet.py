"""The small LeNet on which gradient inversion was first shown.

Three 5x5 convolutions of 12 channels (strides 2, 2, 1), each with its activation, then one linear
layer. Twice differentiable with sigmoids, as matching gradients by L-BFGS asks for.

Source: Zhu, Liu and Han, "Deep Leakage from Gradients", NeurIPS 2019, section 4.1 and its published
code; the same net in Zhao, Mopuri and Bilen, "iDLG", 2020, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from fedexp.core.checks import one_of
from fedexp.models.image import image_shape

CHANNELS = 12
ACTIVATIONS = {"sigmoid": nn.Sigmoid, "relu": nn.ReLU}


def lenet(
    input_shape: Sequence[int], num_classes: int, activation: str, init: str
) -> nn.Sequential:
    """The LeNet of the DLG paper: `[n, C, H, W]` to logits `[n, classes]`, images of any size.

    Args:
        input_shape: (channels, height, width).
        num_classes: number of logits.
        activation: "sigmoid", the paper's, or "relu".
        init: "uniform", the paper's: every weight and bias from U(-0.5, 0.5); or "default",
            PyTorch's own.

    Raises:
        InputError: for another word, or if `input_shape` is not that of an image.

    >>> model = lenet((1, 28, 28), 10, activation="sigmoid", init="uniform")
    >>> sum(p.numel() for p in model.parameters())
    13426
    """
    one_of(ACTIVATIONS, activation=activation)
    one_of(["default", "uniform"], init=init)
    channels, height, width = image_shape(input_shape)
    nonlinearity = ACTIVATIONS[activation]
    features = CHANNELS * math.ceil(height / 4) * math.ceil(width / 4)
    model = nn.Sequential(
        nn.Conv2d(channels, CHANNELS, 5, padding=2, stride=2),
        nonlinearity(),
        nn.Conv2d(CHANNELS, CHANNELS, 5, padding=2, stride=2),
        nonlinearity(),
        nn.Conv2d(CHANNELS, CHANNELS, 5, padding=2),
        nonlinearity(),
        nn.Flatten(),
        nn.Linear(features, num_classes),
    )
    if init == "uniform":
        for parameter in model.parameters():
            nn.init.uniform_(parameter, -0.5, 0.5)
    return model
