"""Inverting gradients: images whose gradient points where the observed one does, and are smooth.

    minimise over x in [0, 1]   1 - <g(x), g*> / (||g(x)|| ||g*||) + tv (mean |dx| + mean |dy|)
                                + learned E(x)

g* is the observed gradient, all layers in one; g(x) the one that images x with the labels found
first would have given, after several local steps what explains them (unrolled, in one of the ways
of `cosine_distance.py`, each step taken to be on all the images), or as if there were one (naive);
|dx| and |dy| differences of neighbouring pixels, and E, if the adversary has images of the kind,
how unlike them x is (`learned_prior.py`; not the paper's). Adam sees only the sign of the gradient
in x (`sign_descent.py`). Unlike matching squares it also works on models with ReLU. It starts from
noise, or from what the first layer says (`first_layer_start.py`; not the paper's), and the start
itself counts as found if the way from it leads to nothing better.

Source: Geiping, Bauermeister, Droege and Moeller, "Inverting Gradients - How easy is it to break
privacy in federated learning?", NeurIPS 2020, section 4 and supplement A. There `tv` and `lr` are
in units of normalised pixels, here in those of pixels in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from fedexp.core.checks import InputError, at_least, non_negative, one_of, positive
from fedexp.core.protocols import Task
from fedexp.leakage.observation import Knowledge, Observation, Reconstruction, least
from fedexp.leakage.updates.analytic import refuse_other_first_layers
from fedexp.leakage.updates.cosine_distance import DERIVED, WAYS, CosineDistance, direction
from fedexp.leakage.updates.first_layer_start import (
    FIRST_LAYER,
    NOISE,
    STARTS,
    with_what_the_first_layer_says,
)
from fedexp.leakage.updates.label_recovery import assumed_labels
from fedexp.leakage.updates.learned_prior import GaussianPrior
from fedexp.leakage.updates.sign_descent import sign_descent

MOST_AT_ONCE = 32  # updates
ON_A_GPU = 16
WRITTEN_AT_ONCE = 2**20  # numbers of gradients: more do not stay in the processor's cache
READ_AT_ONCE = 2**22  # numbers of updates: of larger ones few, so that other cores have some, too


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
        way: "held" or "derived", see `CosineDistance`; has no effect if not unrolled.
        learned_prior: weight of what is learned from images of the kind; 0: the adversary has none.
        prior_images: how many it has, at most.
        prior_explained: share of their variance that the components explain, below 1.
        start: "noise", or "first_layer": what a linear first layer says by itself.
    """

    total_variation: float
    lr: float
    iterations: int
    restarts: int
    unrolled: bool
    # As in runs of the time before there were such keys.
    way: str = DERIVED
    learned_prior: float = 0.0
    prior_images: int = 1000
    prior_explained: float = 0.99
    start: str = NOISE

    def __post_init__(self) -> None:
        non_negative(total_variation=self.total_variation, learned_prior=self.learned_prior)
        positive(lr=self.lr)
        at_least(2, prior_images=self.prior_images)
        if not 0 < self.prior_explained < 1:
            reason = "must be a number between 0 and 1, both excluded"
            raise InputError(reason, "prior_explained", self.prior_explained)
        one_of(WAYS, way=self.way)
        one_of(STARTS, start=self.start)
        at_least(1, iterations=self.iterations, restarts=self.restarts)

    def check_model(self, model: nn.Module, task: Task, x: Tensor, y: Tensor) -> None:
        """Raise InputError for a model whose first layer does not say what it is asked for."""
        if self.start == FIRST_LAYER:
            refuse_other_first_layers(model, tuple(x.shape[1:]))

    def __call__(self, observation: Observation, rng: np.random.Generator) -> Reconstruction:
        """`batch_size` images with the labels shared, or else recovered.

        Raises:
            InputError: labels have to be recovered, and the last layer is not linear; the prior is
                learned, and there are no images to learn it from; or the first layer is asked, and
                is no linear one.
        """
        return self.together([observation], [rng])[0]

    @property
    def images_wanted(self) -> int:
        """None without the prior that is learned from them."""
        return self.prior_images if self.learned_prior else 0

    def at_once(self, knowledge: Knowledge) -> int:
        """Updates of small models are attacked side by side: a step has few numbers to work on.

        On a GPU those of every model: there a step is a launch, however many numbers it has.
        """
        if knowledge.params.device.type != "cpu":
            return ON_A_GPU
        steps = knowledge.local_steps if self.unrolled else 1
        written = CosineDistance(knowledge, self.way).numbers_written(steps)
        most = min(WRITTEN_AT_ONCE // max(1, written), READ_AT_ONCE // len(knowledge.params))
        return max(1, min(MOST_AT_ONCE, most))

    def together(
        self, observations: Sequence[Observation], rngs: Sequence[np.random.Generator]
    ) -> list[Reconstruction]:
        """What each would be by itself, up to rounding; see `TakesSeveral`."""
        known, n = observations[0].knowledge, len(observations)
        if known.params.device.type == "cpu" and any(o.seen is not None for o in observations):
            # What was not sent is left out of gradients that are written, of all layers.
            n = max(1, WRITTEN_AT_ONCE // len(known.params))
        parts = range(0, len(observations), n)
        return [
            found
            for start in parts
            for found in self._side_by_side(
                observations[start : start + n], rngs[start : start + n]
            )
        ]

    def _side_by_side(
        self, observations: Sequence[Observation], rngs: Sequence[np.random.Generator]
    ) -> list[Reconstruction]:
        labels = torch.stack([assumed_labels(observation) for observation in observations])
        starts = [self._descend(observations, labels, rngs) for _ in range(self.restarts)]
        return [least(found) for found in zip(*starts, strict=True)]

    def _descend(
        self,
        observations: Sequence[Observation],
        labels: Tensor,
        rngs: Sequence[np.random.Generator],
    ) -> list[Reconstruction]:
        known = observations[0].knowledge
        steps = known.local_steps if self.unrolled else 1
        distance = CosineDistance(known, self.way)
        observed = torch.stack([direction(o) for o in observations])
        prior = self._prior(known)
        seen = []  # a factor of 1 for every number would take a pass over all of them
        if any(o.seen is not None for o in observations):
            seen = [torch.stack([o.seen_parameters() for o in observations])]

        def objective(pixels: Tensor, labels: Tensor, observed: Tensor, *seen: Tensor) -> Tensor:
            far = distance([(pixels, labels)] * steps, observed, *seen)
            return far + prior(pixels)

        shape = (known.batch_size, *known.input_shape)
        drawn = [torch.from_numpy(rng.random(shape, dtype=np.float32)) for rng in rngs]
        pixels = torch.stack(drawn).to(observed.device)
        if self.start == FIRST_LAYER:
            each = zip(pixels, labels, observations, strict=True)
            pixels = torch.stack([with_what_the_first_layer_says(*one, distance) for one in each])
        given = (labels, observed, *seen)
        starts = pixels.clone()
        slope = _of_each(grad(objective), pixels, *given)
        sign_descent(lambda x: slope(x, *given), pixels, self.lr, self.iterations)
        ways = [pixels] if self.start == NOISE else [starts, pixels]
        ends = zip(zip(*ways, strict=True), *given, strict=True)
        return [
            least(Reconstruction(x, y, float(objective(x, y, *there))) for x in tried)
            for tried, y, *there in ends
        ]

    def _prior(self, known: Knowledge) -> Callable[[Tensor], Tensor]:
        """How much is added for images `[n, C, H, W]` as they are: `[]`."""
        if not self.learned_prior:
            return lambda pixels: self.total_variation * mean_variation(pixels)
        if known.images is None:
            reason = "is learned from images of the kind, and this adversary has none"
            raise InputError(reason, "learned_prior", self.learned_prior)
        likely = GaussianPrior.of(known.images, self.prior_explained)
        return lambda pixels: (
            self.total_variation * mean_variation(pixels) + self.learned_prior * likely(pixels)
        )


def mean_variation(pixels: Tensor) -> Tensor:
    """The mean of |dx| and that of |dy|, added, of images `[..., H, W]`: `[]`."""
    return pixels.diff(dim=-2).abs().mean() + pixels.diff(dim=-1).abs().mean()


def _of_each(function: Callable[..., Tensor], *several: Tensor) -> Callable[..., Tensor]:
    """The function of tensors `[...]` for tensors `[m, ...]`: `[m, ...]`, vectorised if it can be.

    A single one goes without (it has nothing to gain), and so does a model that decides by what is
    in its input.
    """
    if len(several[0]) > 1:
        with suppress(RuntimeError):
            vmap(function)(*several)
            return vmap(function)
    return lambda *each: torch.stack([function(*one) for one in zip(*each, strict=True)])
