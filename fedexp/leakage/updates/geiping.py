"""Inverting gradients: images whose gradient points where the observed one does, and are smooth.

    minimise over x in [0, 1]   1 - <g(x), g*> / (||g(x)|| ||g*||) + tv (mean |dx| + mean |dy|)

g* is the observed gradient, all layers in one; g(x) the one that images x with the labels found
first would have given, after several local steps the mean along them (unrolled), or as if there
were one (naive); |dx| and |dy| differences of neighbouring pixels. Adam sees only the sign of the
gradient in x, its learning rate falls to a tenth after 3/8, 5/8 and 7/8 of the iterations, and
pixels are clamped after every one. Unlike matching squares it also works on models with ReLU.

Source: Geiping, Bauermeister, Droege and Moeller, "Inverting Gradients - How easy is it to break
privacy in federated learning?", NeurIPS 2020, section 4 and supplement A. There `tv` and `lr` are
in units of normalised pixels, here in those of pixels in [0, 1].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fedexp.core.checks import at_least, non_negative, positive
from fedexp.leakage.observation import Observation, Reconstruction
from fedexp.leakage.updates.expected_update import mean_gradient
from fedexp.leakage.updates.label_recovery import assumed_labels

DECAY = 0.1  # of the learning rate, at each milestone
MILESTONES = (3 / 8, 5 / 8, 7 / 8)  # shares of the iterations


@final
@dataclass(frozen=True)
class Geiping:
    """Cosine distance of gradients plus total variation, by Adam on signs.

    Args:
        total_variation: weight of the prior.
        lr: first learning rate, in pixels.
        iterations: from one start.
        restarts: starts; the one with the least objective counts.
        unrolled: explain the update through the local steps instead of as one gradient.
    """

    total_variation: float
    lr: float
    iterations: int
    restarts: int
    unrolled: bool

    def __post_init__(self) -> None:
        non_negative(total_variation=self.total_variation)
        positive(lr=self.lr)
        at_least(1, iterations=self.iterations, restarts=self.restarts)

    def __call__(self, observation: Observation, rng: np.random.Generator) -> Reconstruction:
        """`batch_size` images with the labels shared, or else recovered.

        Raises:
            InputError: labels have to be recovered, and the last layer is not linear.
        """
        labels = assumed_labels(observation)
        found = [self._descend(observation, labels, rng) for _ in range(self.restarts)]
        return min(found, key=lambda f: math.inf if math.isnan(f.loss) else f.loss)

    def _descend(
        self, observation: Observation, labels: Tensor, rng: np.random.Generator
    ) -> Reconstruction:
        known = observation.knowledge
        parameters = known.parameters(torch.float32)
        steps = known.local_steps if self.unrolled else 1
        observed = F.normalize(_flat(observation.gradient()), dim=0).float()

        def objective(pixels: Tensor) -> Tensor:
            expected = _flat(mean_gradient(known, parameters, pixels, labels, steps))
            cosine = F.cosine_similarity(expected, observed, dim=0)
            return 1 - cosine + self.total_variation * _total_variation(pixels)

        shape = (known.batch_size, *known.input_shape)
        pixels = torch.from_numpy(rng.random(shape, dtype=np.float32)).requires_grad_()
        optimizer = torch.optim.Adam([pixels], lr=self.lr)
        milestones = [math.ceil(share * self.iterations) for share in MILESTONES]
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, gamma=DECAY)
        for _ in range(self.iterations):
            (gradient,) = torch.autograd.grad(objective(pixels), [pixels])
            pixels.grad = gradient.sign()
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                pixels.clamp_(0, 1)
        return Reconstruction(pixels.detach(), labels, float(objective(pixels).detach()))


def _total_variation(pixels: Tensor) -> Tensor:
    return pixels.diff(dim=2).abs().mean() + pixels.diff(dim=3).abs().mean()


def _flat(gradient: dict[str, Tensor]) -> Tensor:
    return torch.cat([g.reshape(-1) for g in gradient.values()])
