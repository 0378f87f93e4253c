"""How examples are shifted and scaled before a model sees them.

train   by means and deviations of the training part: (x - mean) / deviation, per channel or
feature. No epsilon covers these numbers: the federation is taken to know them.
none    not at all: pixels stay in [0, 1]
fixed   by numbers that were known before: 0.5 and 0.5 in torchvision's tutorials
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fedexp.core.checks import InputError, one_of
from fedexp.core.types import Normalisation, Split

WAYS = ("train", "none", "fixed")
USUAL = {"fixed_mean": 0.5, "fixed_deviation": 0.5}


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
