"""Inverting epochs of minibatches: each epoch has images of its own, which are the same images.

    minimise over x_1..x_E in [0, 1]
        1 - cos(g(x), g*)  +  tv / E sum_e V(x_e)  +  invariant * 2 / (E (E - 1)) sum_(e < f) D_ef
    D_ef = mean over the pixels of (mean_j x_ej - mean_j x_fj)^2

A client went through its n images E times, in minibatches and in orders that nobody told. So the
attack looks for n images in every epoch, cuts them into that epoch's minibatches as they stand, and
follows the client's steps along all of them: g(x) is the gradient that these steps explain and g*
the one observed (`cosine_distance.py`), V the mean variation of `geiping.py`. What does not depend
on the order of an epoch's images, here their mean, has to be the same in all of them: D. In the end
every epoch's images are matched with the first one's, by squared errors, and averaged.

Labels are those shared or recovered, in an order drawn at random, the same in every epoch.

Source: Dimitrov, Balunovic, Konstantinov and Vechev, "Data Leakage in Federated Averaging", TMLR
2022, algorithms 1 and 2, with the mean as the invariant and its squared distance. Theirs are an
exponential decay of the learning rate, weights of layers that grow by depth, and labels counted
along a path interpolated step by step; here descent and labels are those of `leakage=geiping`, so
that the two differ in what they know of the epochs alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import final

import numpy as np
import torch
from torch import Tensor
from torch.func import grad

from fedexp.core.checks import at_least, non_negative, one_of, positive
from fedexp.leakage.observation import Observation, Reconstruction, least
from fedexp.leakage.updates.cosine_distance import WAYS, CosineDistance, direction
from fedexp.leakage.updates.expected_update import Batch
from fedexp.leakage.updates.geiping import mean_variation
from fedexp.leakage.updates.image_scores import arranged, matched
from fedexp.leakage.updates.label_recovery import assumed_labels
from fedexp.leakage.updates.sign_descent import sign_descent


@final
@dataclass(frozen=True)
class EpochInversion:
    """Cosine distance along the epochs, smooth images, and epochs alike; by Adam on signs.

    Args:
        total_variation: weight of the prior on each image.
        invariant: weight of the prior that the epochs hold the same images.
        lr: first learning rate, in pixels.
        iterations: from one start.
        restarts: starts; the one with the least objective counts.
        way: "held" or "derived", see `CosineDistance`.
    """

    total_variation: float
    invariant: float
    lr: float
    iterations: int
    restarts: int
    way: str

    def __post_init__(self) -> None:
        non_negative(total_variation=self.total_variation, invariant=self.invariant)
        positive(lr=self.lr)
        one_of(WAYS, way=self.way)
        at_least(1, iterations=self.iterations, restarts=self.restarts)

    def __call__(self, observation: Observation, rng: np.random.Generator) -> Reconstruction:
        """`batch_size` images with the labels shared, or else recovered.

        Raises:
            InputError: labels have to be recovered, and the last layer is not linear.
        """
        labels = assumed_labels(observation)
        return least(self._descend(observation, labels, rng) for _ in range(self.restarts))

    def _descend(
        self, observation: Observation, labels: Tensor, rng: np.random.Generator
    ) -> Reconstruction:
        known = observation.knowledge
        sizes = known.sizes_of_an_epoch()
        epochs = known.local_steps // len(sizes)
        distance = CosineDistance(known, self.way)
        observed = direction(observation)
        seen = None if observation.seen is None else observation.seen_parameters()
        ordered = labels[torch.from_numpy(rng.permutation(len(labels))).to(labels.device)]

        def objective(pixels: Tensor) -> Tensor:
            along = [step for images in pixels for step in steps_of(images, ordered, sizes)]
            return (
                distance(along, observed, seen)
                + self.total_variation * mean_variation(pixels)
                + self.invariant * disagreement(pixels)
            )

        shape = (epochs, known.batch_size, *known.input_shape)
        pixels = torch.from_numpy(rng.random(shape, dtype=np.float32)).to(observed.device)
        sign_descent(grad(objective), pixels, self.lr, self.iterations)
        return Reconstruction(averaged(pixels.cpu()), ordered, float(objective(pixels)))


def steps_of(images: Tensor, labels: Tensor, sizes: list[int]) -> list[Batch]:
    """The minibatches of one epoch, of images `[n, C, H, W]` as they stand."""
    return list(zip(images.split(sizes), labels.split(sizes), strict=True))


def disagreement(pixels: Tensor) -> Tensor:
    """How far the epochs' mean images are apart: `[E, n, C, H, W]` to `[]`, 0 for one epoch.

    The mean squared difference over the pixels and all pairs of epochs.
    """
    means = pixels.mean(dim=1)
    pairs = [(one - other).square().mean() for one, other in combinations(means, 2)]
    return torch.stack(pairs).mean() if pairs else pixels.new_zeros(())


def averaged(pixels: Tensor) -> Tensor:
    """The images of all epochs `[E, n, C, H, W]`, matched with the first one's: `[n, C, H, W]`."""
    first = pixels[0]
    alike = [arranged(images, matched(images, first)) for images in pixels]
    return torch.stack(alike).mean(dim=0)
