"""ResNet-18 for small images, without running statistics."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import nn

from fedexp.core.checks import InputError, at_least
from fedexp.models.image import image_shape

CHANNELS = 64  # of the first layer; those of the later ones are its multiples


def resnet18(input_shape: Sequence[int], num_classes: int, groups: int) -> nn.Module:
    """ResNet-18 of torchvision with GroupNorm, for 28x28: `[n, C, H, W]` to `[n, classes]`.

    The first convolution is 3x3 with stride 1 and the first pooling is left out, as is usual for
    images this small (He et al., CVPR 2016, section 4.2; MedMNIST's 28-pixel recipe). GroupNorm (Wu
    and He, ECCV 2018) in the place of BatchNorm: its statistics never leave the example, so there
    is nothing beside the parameters for clients to average, and DP-SGD applies.

    Args:
        input_shape: (channels, height, width).
        num_classes: number of logits.
        groups: groups of each GroupNorm; has to divide 64.

    Raises:
        InputError: if it does not, or if `input_shape` is not that of an image.
    """
    from torchvision.models import resnet18 as torchvision_resnet18

    at_least(1, groups=groups)
    if CHANNELS % groups:
        raise InputError(
            f"has to divide the {CHANNELS} channels of the first layer", "groups", groups
        )
    channels, _, _ = image_shape(input_shape)
    model = torchvision_resnet18(num_classes=num_classes, norm_layer=partial(nn.GroupNorm, groups))
    model.conv1 = nn.Conv2d(channels, CHANNELS, 3, padding=1, bias=False)
    model.maxpool = nn.Identity()
    assert isinstance(model, nn.Module)
    return model
