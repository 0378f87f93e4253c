"""Adam on the signs of slopes, for pixels that stay in [0, 1]: how gradients are inverted.

The learning rate falls to a tenth after 3/8, 5/8 and 7/8 of the iterations, and pixels are clamped
after every one.

Source: Geiping, Bauermeister, Droege and Moeller, "Inverting Gradients - How easy is it to break
privacy in federated learning?", NeurIPS 2020, section 4 and supplement A.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

DECAY = 0.1  # of the learning rate, at each milestone
MILESTONES = (3 / 8, 5 / 8, 7 / 8)  # shares of the iterations


def sign_descent(
    slope: Callable[[Tensor], Tensor], pixels: Tensor, lr: float, iterations: int
) -> Tensor:
    """Where the descent ends; `pixels` is moved in place and handed back.

    Args:
        slope: of what is to become small, at pixels of any shape.
        pixels: floating point, in [0, 1].
        lr: first learning rate, in pixels.
        iterations: how many steps.
    """
    optimizer = torch.optim.Adam([pixels], lr=lr)
    milestones = [math.ceil(share * iterations) for share in MILESTONES]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, gamma=DECAY)
    for _ in range(iterations):
        pixels.grad = slope(pixels).sign()
        optimizer.step()
        schedule.step()
        pixels.clamp_(0, 1)
    return pixels
