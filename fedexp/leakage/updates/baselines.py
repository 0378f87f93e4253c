"""What an adversary has without any attack: the images that a reconstruction has to beat.

"class mean"      the mean of other images of the same class
"mean image"      the mean of other images of all classes
"noise"           pixels drawn uniformly from [0, 1]
"prior only"      noise that was made smooth: an inversion whose only term is the total variation
"held-out image"  another, real image of the same class

Digits on black score 8 to 12 dB of PSNR against the mean image: without these, a reconstruction
that shows nothing looks like one that shows something.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from fedexp.core.checks import InputError
from fedexp.core.examples import Split
from fedexp.core.rng import torch_generator
from fedexp.leakage.updates.image_scores import total_variation

CLASS_MEAN = "class mean"
PRIOR_STEPS = 200
PRIOR_LR = 0.05  # of Adam, in pixel values


def baselines(held_out: Split, labels: Tensor, rng: np.random.Generator) -> Mapping[str, Tensor]:
    """For each of `labels` `[k]` one image of every kind: name -> `[k, C, H, W]` float32.

    Args:
        held_out: images of the same kind that the model was not trained on.
        labels: the classes of the images attacked. A class that `held_out` lacks counts as any.
        rng: draws the noise and the held-out images, of which none comes twice before all of its
            class have come once.

    Raises:
        InputError: there are no held-out images.
    """
    if not len(held_out):
        raise InputError("baselines need images that were not trained on; there are none")
    g = torch_generator(int(rng.integers(2**63)))
    k, shape = len(labels), held_out.x.shape[1:]
    mean = held_out.x.mean(dim=0)
    of_class = mean.repeat(k, 1, 1, 1)
    real = torch.empty(k, *shape)
    for label in labels.unique().tolist():
        own = (held_out.y == label).nonzero().flatten()
        if len(own):
            of_class[labels == label] = held_out.x[own].mean(dim=0)
        else:
            own = torch.arange(len(held_out))
        wanted = int((labels == label).sum())
        rounds = -(-wanted // len(own))
        order = torch.cat([own[torch.randperm(len(own), generator=g)] for _ in range(rounds)])
        real[labels == label] = held_out.x[order[:wanted]]
    return {
        CLASS_MEAN: of_class,
        "mean image": mean.repeat(k, 1, 1, 1),
        "noise": torch.rand(k, *shape, generator=g),
        "prior only": _smooth(torch.rand(k, *shape, generator=g)),
        "held-out image": real,
    }


def _smooth(images: Tensor) -> Tensor:
    """Images `[k, C, H, W]` after `PRIOR_STEPS` of Adam on their total variation alone."""
    pixels = images.clone().requires_grad_()
    optimizer = torch.optim.Adam([pixels], lr=PRIOR_LR)
    for _ in range(PRIOR_STEPS):
        (pixels.grad,) = torch.autograd.grad(total_variation(pixels).sum(), [pixels])
        optimizer.step()
        with torch.no_grad():
            pixels.clamp_(0, 1)
    return pixels.detach()
