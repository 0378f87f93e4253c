"""How examples are shifted and scaled before a model sees them.

train   by means and deviations of the training part: (x - mean) / deviation, per channel or
feature. No epsilon covers these numbers: the federation is taken to know them.
none    not at all: pixels stay in [0, 1]
fixed   by numbers that were known before: 0.5 and 0.5 in torchvision's tutorials
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedexp.core.checks import InputError, one_of
from fedexp.core.examples import Split, divided
from fedexp.core.moments import moments

WAYS = ("train", "none", "fixed")
USUAL = {"fixed_mean": 0.5, "fixed_deviation": 0.5}


@dataclass(frozen=True)
class Normalisation:
    """From examples in their own unit to what a model takes: mean 0, deviation 1.

    Per channel of an image, per feature of a row.
    """

    mean: Tensor  # [1, channels, 1, 1] or [1, features] float32
    deviation: Tensor  # the same shape

    @classmethod
    def of(cls, reference: Split) -> Normalisation:
        """With the reference's own means and deviations, exact to a rounding to float32."""
        x = reference.x
        mean, deviation = moments(x, reference.divisor)
        # A channel that never changes has deviation 0: only shift it rather than divide by that.
        deviation = torch.where(deviation > 0, deviation, 1.0)
        shape = (1, -1, *[1] * (x.dim() - 2))
        return cls(mean.float().view(shape), deviation.float().view(shape))

    @classmethod
    def none(cls) -> Normalisation:
        """That of examples that are shifted and scaled already."""
        return cls(torch.zeros(()), torch.ones(()))

    def x(self, values: Tensor) -> Tensor:
        """Examples `[n, *shape]` of any floating type, in their own unit, shifted and scaled.

        Raises:
            TypeError: they are bytes, whose divisor is not known here.
        """
        if not values.is_floating_point():
            raise TypeError("stored bytes have no unit of their own: take Split.as_floats() first")
        return (values - self.mean.to(values.dtype)) / self.deviation.to(values.dtype)

    def arranged(self, part: Split, layout: torch.memory_format) -> Tensor:
        """The part's examples shifted and scaled, as float32 in a memory layout of their own."""
        x = torch.empty(part.x.shape, device=part.x.device, memory_format=layout)
        if part.x.dtype == torch.float32:
            x.copy_(part.x)
        else:
            divided(part.x, part.divisor, out=x)
        # The same operations on every number as in `x`, without a copy for each.
        return x.sub_(self.mean).div_(self.deviation)

    def equals(self, other: Normalisation) -> bool:
        """Whether both are the same numbers."""
        return torch.equal(self.mean, other.mean) and torch.equal(self.deviation, other.deviation)

    def to(self, device: torch.device) -> Normalisation:
        """On another device."""
        return Normalisation(self.mean.to(device), self.deviation.to(device))

    def __call__(self, part: Split) -> Split:
        """A part with its examples shifted and scaled."""
        return part.with_x(self.x(part.as_floats().x))


def normalisation_of(dataset: Mapping[str, Any], train: Split) -> Normalisation:
    """That of a config's group `dataset`, for a training part.

    Raises:
        InputError: no such way, or numbers that do not fit; names the key.
    """
    way = dataset.get("normalise", WAYS[0])
    one_of(WAYS, **{"dataset.normalise": way})
    if way == "fixed":
        channels = train.x.shape[1]
        shape = (1, channels, *[1] * (train.x.dim() - 2))
        mean, deviation = (_numbers(dataset, key, channels).view(shape) for key in USUAL)
        if not bool((deviation > 0).all()):
            raise InputError(
                "must be above 0", "dataset.fixed_deviation", dataset["fixed_deviation"]
            )
        return Normalisation(mean, deviation)
    for key, usual in USUAL.items():
        if (value := dataset.get(key, usual)) != usual:
            raise InputError(f"has no effect with dataset.normalise={way}", f"dataset.{key}", value)
    return Normalisation.of(train) if way == "train" else Normalisation.none()


def _numbers(dataset: Mapping[str, Any], key: str, channels: int) -> Tensor:
    """`[channels]` float32, from one number for all or a list."""
    value = dataset.get(key, USUAL[key])
    listed = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    right = all(
        isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)
        for number in listed
    )
    if not right or len(listed) not in (1, channels):
        raise InputError(
            f"must be a number, or a list of {channels} (channels or features)",
            f"dataset.{key}",
            value,
        )
    return torch.tensor(listed, dtype=torch.float32).expand(channels).clone()
