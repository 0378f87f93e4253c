"""Convolutional networks for images of 8x8 pixels and more.

Pooling comes before ReLU. The papers have it after: the same function, for the larger of two
numbers stays the larger, with the same bits and gradients, on a quarter of the numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from fedexp.models.image import image_shape


def cnn(input_shape: Sequence[int], num_classes: int) -> nn.Module:
    """The CNN of McMahan et al., AISTATS 2017, section 3: `[n, C, H, W]` to `[n, classes]`.

    Two 5x5 convolutions (32 and 64 channels, 'same' padding), each followed by 2x2 max pooling
    and ReLU, a hidden layer of 512 and the output layer.

    >>> sum(p.numel() for p in cnn((1, 28, 28), 10).parameters())
    1663370
    """
    channels, height, width = image_shape(input_shape, least=4)
    return nn.Sequential(
        nn.Conv2d(channels, 32, 5, padding=2),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(32, 64, 5, padding=2),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64 * (height // 4) * (width // 4), 512),
        nn.ReLU(),
        nn.Linear(512, num_classes),
    )


def small_cnn(input_shape: Sequence[int], num_classes: int) -> nn.Module:
    """A CNN of about 25,000 parameters: `[n, C, H, W]` to logits `[n, classes]`.

    Two 3x3 convolutions (16 and 40 channels), each with 2x2 max pooling and ReLU, then one linear
    layer. Small enough for differential privacy, whose noise grows with the number of parameters.

    >>> sum(p.numel() for p in small_cnn((1, 28, 28), 10).parameters())
    25570
    """
    channels, height, width = image_shape(input_shape, least=4)
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3, padding=1),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(16, 40, 3, padding=1),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(40 * (height // 4) * (width // 4), num_classes),
    )
