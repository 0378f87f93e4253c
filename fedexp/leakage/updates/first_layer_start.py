"""A start for inversions where the first layer already says something: noise, or what it says.

The rows of a linear first layer's update are mixtures of the images, and after many steps on one
image multiples of it (`analytic.py`). A search that starts there need not find its way through
local steps that overshoot, in which it is lost from noise. Which of several images has which label
the layer does not say: they are dealt out so that the gradients of the pairs alone point most
towards the update (an assignment problem).
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedexp.leakage.observation import Observation
from fedexp.leakage.updates.analytic import said_by_the_first_layer
from fedexp.leakage.updates.cosine_distance import CosineDistance, direction

NOISE, FIRST_LAYER = "noise", "first_layer"
STARTS = (NOISE, FIRST_LAYER)


def with_what_the_first_layer_says(
    noise: Tensor, labels: Tensor, observation: Observation, distance: CosineDistance
) -> Tensor:
    """The images `[n, C, H, W]` to start from: noise where the layer says nothing.

    Args:
        noise: `[n, C, H, W]`.
        labels: `[n]`, which the images shall be of.
        observation: the update.
        distance: of a pair's gradient from it.

    Raises:
        InputError: the first layer is no linear one with a bias on the pixels.
    """
    from scipy.optimize import linear_sum_assignment

    said = said_by_the_first_layer(observation).to(noise)
    observed, seen = direction(observation), observation.seen_parameters()
    far = torch.tensor(
        [[float(distance([(x[None], y[None])], observed, seen)) for y in labels] for x in said]
    ).reshape(len(said), len(labels))
    start = noise.clone()
    image, place = linear_sum_assignment(far.numpy())
    start[place] = said[image]
    return start
