"""DP-SGD: no example moves a step by more than a bound, and noise of that size hides who was there.

    g = (sum_{i in batch} g_i min(1, C / |g_i|) + N(0, (z C)^2 I)) / (q n)

with g_i the gradient of example i over all trainable parameters together (0 where it is not
finite), C the `clip_norm`, z the `noise_multiplier`, and a batch that each of the n examples joins
independently with probability q = 1 / ceil(n / batch_size). The divisor q n is the expected size,
whoever joined; a batch without examples is a step of noise alone. What a trainer does with g
(momentum, decay, Adam) is post-processing.

Source: Abadi et al., "Deep Learning with Differential Privacy", CCS 2016, algorithm 1. Opacus draws
batches with the same q and divides by int(q n). The guarantee is for one example of one client
added or removed, and n is public. The reported loss has no noise: no epsilon covers it. By
default noise comes from the task's seed: runs can be repeated, and whoever knows the seed can take
the noise away.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from itertools import accumulate
from typing import final

import numpy as np
import torch
from torch import Tensor

from fedexp.core.checks import non_negative, one_of, positive
from fedexp.core.examples import Split
from fedexp.core.protocols import Model
from fedexp.core.rng import generator
from fedexp.core.types import ClientTask
from fedexp.privacy.noise import NOISE_SEEDS, add_noise, gaussian
from fedexp.privacy.noise_ahead import noise_ahead
from fedexp.training.per_example import Targets, Watch, channels_last, watching
from fedexp.training.steps import Step, Work

CLIPPING = ("ghost", "hooks", "auto")


@final
@dataclass(frozen=True)
class PrivateSteps:
    """Steps of DP-SGD, for `fedexp.training.steps.train_steps`.

    Args:
        clip_norm: C, the largest norm that an example's gradient keeps.
        noise_multiplier: z, the noise's standard deviation on the sum, in units of C.
        clipping: how norms are found; changes time, memory and rounding only. "ghost": from the
            factors of the gradients where a layer has them; "hooks": from the gradients; "auto":
            from what is smaller, layer by layer.
        noise_seed: "task": from the run's seed; "os": from the operating system, kept nowhere.
    """

    clip_norm: float
    noise_multiplier: float
    clipping: str
    noise_seed: str

    def __post_init__(self) -> None:
        positive(clip_norm=self.clip_norm)
        non_negative(noise_multiplier=self.noise_multiplier)
        one_of(CLIPPING, clipping=self.clipping)
        one_of(NOISE_SEEDS, noise_seed=self.noise_seed)

    def __call__(
        self, model: Model, shard: Split, task: ClientTask, work: Work
    ) -> Generator[Step, None, None]:
        """Noised sums of clipped gradients over Poisson batches.

        Raises:
            InputError: the model has a layer that DP-SGD cannot train.
        """
        n, batches = len(shard), work.batches(len(shard))
        expected = n / batches
        noise = self.noise_multiplier * self.clip_norm / expected
        # The batches have a stream of their own: the same ones whatever else is drawn.
        poisson = generator(task.seed, "batches")
        gradient = torch.empty(sum(p.numel() for p in model.parameters), device=shard.x.device)
        ends = accumulate(p.numel() for p in model.parameters)
        targets = {
            p: channels_last(p, gradient[end - p.numel() : end])
            for p, end in zip(model.parameters, ends, strict=True)
        }
        noised = noise_ahead(self._noise(task, noise), gradient, work.steps_for(n))
        with watching(model.module) as watch, closing(noised):
            for _ in noised:
                drawn = torch.from_numpy(np.flatnonzero(poisson.random(n) < 1 / batches))
                batch = shard.rows(drawn.to(shard.y.device))
                loss = gradient.new_zeros(())
                if len(batch):
                    losses = model.task.losses(model.module(model.arrange(batch)), batch.y)
                    self._add_clipped(watch, losses, targets, expected)
                    loss = losses.detach().mean()
                yield Step(tuple(targets.values()), loss, len(batch))

    def _noise(self, task: ClientTask, std: float) -> Callable[[Tensor], object]:
        """Fills a vector `[d]` with Gaussian noise of the standard deviation.

        By NumPy: torch's generator on the CPU keeps 32 bits of a seed, which can all be tried.
        """
        of_the_system = self.noise_seed == "os"
        seed = int.from_bytes(os.urandom(16), "little") if of_the_system else task.seed
        draw = gaussian(generator(seed, "noise"))

        def fill(vector: Tensor) -> None:
            vector.zero_()
            add_noise(vector, std, draw)

        return fill

    def _add_clipped(self, watch: Watch, losses: Tensor, targets: Targets, expected: float) -> None:
        """Add the batch's clipped gradients, divided by the expected size, to the noise."""
        layers = watch.gradients(losses, targets, self.clipping)
        norms = torch.stack([layer.squared_norms() for layer in layers]).sum(dim=0).sqrt_()
        # A gradient without a length (NaN, or too long for a float) cannot be cut to C: it is left
        # out, or there would be no bound for every example.
        kept = (self.clip_norm / norms.clamp_min(self.clip_norm)).nan_to_num_(0.0)
        for layer in layers:
            layer.add_weighted_sum(kept / expected)
