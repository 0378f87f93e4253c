"""Analytic inversion: the image itself stands in the update of a first linear layer with a bias.

    z = W x + b:   dL/dW_i = dL/dz_i x   and   dL/db_i = dL/dz_i,   hence   x = dW_i / db_i

for every unit i of the layer that the image x moved. No step is solved for, so nothing needs to be
known but which layer comes first. As all steps on one image move W_i by multiples of x, the ratio
of the updates after many steps of plain SGD is the same.

At a batch of 1, i is the unit with the largest |db_i|. In a batch a unit gives a mixture of the
images that moved it, which is one image where only one did (after a ReLU): ratios that several
units agree on are taken first, then those of the units that moved most. That is a best effort: a
mixture may pass for an image, and fewer images than the batch may come back.

Source: Phong et al., "Privacy-Preserving Deep Learning via Additively Homomorphic Encryption", IEEE
TIFS 13(5), 2018, section 3; Geiping et al., "Inverting Gradients", NeurIPS 2020, proposition 3.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor, nn

from fedexp.core.checks import InputError
from fedexp.core.protocols import Task
from fedexp.leakage.observation import Observation, Reconstruction
from fedexp.leakage.updates.label_recovery import assumed_labels

MARGIN = 0.05  # how far outside [0, 1] the ratio of a unit that one image moved may lie
SAME_IMAGE = 1e-4  # mean squared difference below which two ratios are of one image


@final
@dataclass(frozen=True)
class Analytic:
    """The ratios of weight to bias updates in the first layer. Has no settings."""

    def check_model(self, model: nn.Module, task: Task, x: Tensor, y: Tensor) -> None:
        """Raise InputError for a model whose first layer is no linear one on the pixels."""
        refuse_other_first_layers(model, tuple(x.shape[1:]))

    def __call__(self, observation: Observation, rng: np.random.Generator) -> Reconstruction:
        """At most `batch_size` images, none where the layer did not move; draws nothing.

        Which label is which image's is not known at a batch above 1.

        Raises:
            InputError: the first layer with parameters is no linear one with a bias on the pixels.
        """
        images = said_by_the_first_layer(observation)
        return Reconstruction(images, assumed_labels(observation)[: len(images)], math.nan)


def said_by_the_first_layer(observation: Observation) -> Tensor:
    """At most `batch_size` images `[k, C, H, W]` in [0, 1]; raises what `Analytic` does."""
    known = observation.knowledge
    weight, bias = _first_layer(observation)
    moved = bias.abs().argsort(descending=True)[: int(bias.count_nonzero())]
    ratios = weight[moved] / bias[moved, None]
    mean, deviation = known.normalisation.mean, known.normalisation.deviation
    pixels = ratios.view(-1, *known.input_shape) * deviation.double() + mean.double()
    chosen = pixels[:1] if known.batch_size == 1 else _distinct(pixels, known.batch_size)
    return chosen.clamp(0, 1).float()


def _first_layer(observation: Observation) -> tuple[Tensor, Tensor]:
    """The updates of its weight `[units, pixels]` and bias `[units]`, up to one factor, float64."""
    known = observation.knowledge
    gradient = observation.gradient()
    name = refuse_other_first_layers(known.module, known.input_shape)
    prefix = f"{name}." if name else ""
    return gradient[f"{prefix}weight"], gradient[f"{prefix}bias"]


def refuse_other_first_layers(model: nn.Module, input_shape: tuple[int, ...]) -> str:
    """Raise InputError unless the first layer is linear, on the pixels, trained and with a bias.

    Returns:
        Its name in the model; "" for the model itself.
    """
    name, layer = next(
        (name, layer)
        for name, layer in model.named_modules()
        if any(True for _ in layer.parameters(recurse=False))
    )
    if (
        not isinstance(layer, nn.Linear)
        or layer.in_features != math.prod(input_shape)
        or layer.bias is None
        or not (layer.weight.requires_grad and layer.bias.requires_grad)
    ):
        raise InputError(
            f"its first layer is {name} ({layer}): analytic inversion needs a linear one with a "
            "bias, trained, that takes the pixels themselves, such as model=mlp has",
            "model",
            type(model).__name__,
        )
    return str(name)


def _distinct(pixels: Tensor, most: int) -> Tensor:
    """At most `most` different images of `[k, C, H, W]`, those that most rows agree on first."""
    within = ((pixels > -MARGIN) & (pixels < 1 + MARGIN)).flatten(1).all(dim=1)
    candidates = pixels[within] if within.any() else pixels[:1]
    rows = candidates.flatten(1)
    same = torch.cdist(rows, rows).square() / rows.shape[1] < SAME_IMAGE
    chosen: list[int] = []
    for candidate in same.sum(dim=1).argsort(descending=True, stable=True).tolist():
        if len(chosen) < most and not same[candidate, chosen].any():
            chosen.append(candidate)
    return candidates[chosen]
