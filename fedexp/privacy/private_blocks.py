"""DP-SGD's steps for a block of clients at once: `private_steps` with a client's axis.

Every example's gradient is made by itself (`torch.func`: a gradient, mapped over the examples of a
client and over the clients), cut to its norm, and summed by client; each client adds noise of a
stream of its own. Batches are Poisson draws from the streams that clients one after the other draw
from, all of them before the first step.

On the CPU the noise is that of clients one after the other too, by NumPy. On a GPU it is drawn
there: a generator a client, of 63 bits (with "os", of 64 from the operating system), in float32.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Protocol, final

import numpy as np
import torch
from torch import Tensor
from torch.func import grad, vmap

from fedexp.core.blocks import Block
from fedexp.core.devices import on_device
from fedexp.core.rng import generator, seed_for, torch_generator
from fedexp.core.stacked import StackedModel
from fedexp.privacy.noise import add_noise, gaussian
from fedexp.training.blocks import Batches, BlockStep, Gathered, gathered_steps
from fedexp.training.per_example import channels_last, squared_norms
from fedexp.training.steps import Work

DRAWN_AT_ONCE = 2**20  # numbers of noise of a client, on a GPU


class Noise(Protocol):
    """Noise for the steps of a block, a stream a client."""

    def __call__(self, scales: Sequence[float]) -> Tensor:
        """The next step's, `[a, d]` for the first a = len(scales) clients.

        Args:
            scales: standard deviation of each one's.
        """


@final
@dataclass(frozen=True)
class PrivateBlockSteps:
    """Steps of DP-SGD for a block.

    Args:
        clip_norm: C, the largest norm that an example's gradient keeps.
        noise_multiplier: z, the noise's standard deviation on the sum, in units of C.
        noise_seed: "task" or "os".
    """

    clip_norm: float
    noise_multiplier: float
    noise_seed: str

    def __call__(self, block: Block, work: Work) -> Generator[BlockStep, None, None]:
        """Noised sums of clipped gradients over Poisson batches."""
        model = block.model
        batches = [
            _poisson(n, work, task.seed) for n, task in zip(block.sizes, block.tasks, strict=True)
        ]
        expected = [n / work.batches(n) for n in block.sizes]
        divisors = on_device(np.array(expected, dtype=np.float32), model.device)
        scales = [self.noise_multiplier * self.clip_norm / size for size in expected]
        noise = _noise_of(block, self.noise_seed)
        for step in gathered_steps(block, batches):
            a = len(step.examples)
            sums, losses = self._clipped_sums(model, step, divisors[:a])
            noises = in_parameters(model, noise(scales[:a]))
            noisy = [noise + total for noise, total in zip(noises, sums, strict=True)]
            yield BlockStep(_filled(noisy, len(model)), losses, step.examples)

    def _clipped_sums(
        self, model: StackedModel, step: Gathered, divisors: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        """Of each client `[a, *shape]`, over its divisor; and the mean losses `[a]`."""
        a, b = step.there.shape
        some = [p.detach()[:a] for p in model.parameters]
        samples, losses = example_gradients(model, some, step.x, step.y)
        norms = torch.stack([squared_norms(g.flatten(0, 1)) for g in samples]).sum(dim=0).sqrt_()
        # A gradient without a length (NaN, or too long for a float) cannot be cut to C: it is left
        # out, or there would be no bound for every example.
        kept = (self.clip_norm / norms.clamp_min(self.clip_norm)).nan_to_num_(0.0).view(a, b)
        weights = kept * step.there / divisors[:, None]
        sums = [
            # Of what is left out, numbers that are none would still be none times 0.
            torch.einsum("ab,abn->an", weights, g.flatten(2).nan_to_num_(0, 0, 0)).view_as(p)
            for g, p in zip(samples, some, strict=True)
        ]
        there = step.there.sum(dim=1).clamp_min(1)
        return sums, (losses.masked_fill(step.there == 0, 0).sum(dim=1) / there)


def example_gradients(
    model: StackedModel, parameters: list[Tensor], x: Tensor, y: Tensor
) -> tuple[list[Tensor], Tensor]:
    """Each example's own gradients `[a, b, *shape]` and losses `[a, b]`."""

    def loss_of(own: list[Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        loss = model.task.losses(model.of_one(own, x[None]), y[None])[0]
        return loss, loss.detach()

    of_client = vmap(grad(loss_of, has_aux=True), in_dims=(None, 0, 0))
    gradients, losses = vmap(of_client, randomness="error")(parameters, x, y)
    return gradients, losses


def in_parameters(model: StackedModel, vectors: Tensor) -> list[Tensor]:
    """Vectors `[a, d]` as views in the parameters' shapes, in the order that DP-SGD has them in."""
    pieces = zip(model.parameters, vectors.split(model.sizes, dim=1), strict=True)
    return [channels_last(stacked[0], piece) for stacked, piece in pieces]


def _poisson(n: int, work: Work, seed: int) -> Batches:
    """Each of n examples joins each batch with probability one over the batches of an epoch."""
    stream, rate = generator(seed, "batches"), 1 / work.batches(n)
    return [np.flatnonzero(stream.random(n) < rate) for _ in range(work.steps_for(n))]


def _filled(gradients: Sequence[Tensor], k: int) -> tuple[Tensor, ...]:
    """`[a, *shape]` each with zeros for those who are done: `[k, *shape]`."""
    missing = k - len(gradients[0])
    if not missing:
        return tuple(gradients)
    return tuple(torch.cat([g, g.new_zeros(missing, *g.shape[1:])]) for g in gradients)


def _noise_of(block: Block, noise_seed: str) -> Noise:
    """On the block's device."""
    device = block.model.device
    kind = OfTheHost if device.type == "cpu" else OfTheDevice
    seeds = [kind.seed(task.seed, noise_seed) for task in block.tasks]
    return kind(seeds, block.model.d, device)


def _of_the_system(bits: int) -> int:
    return int.from_bytes(os.urandom(bits // 8), "little")


@final
class OfTheHost:
    """By NumPy: torch's generator on the CPU keeps 32 bits of a seed, which can all be tried."""

    def __init__(self, seeds: Sequence[int], d: int, device: torch.device) -> None:
        self._streams = [gaussian(generator(seed, "noise")) for seed in seeds]
        self._d = d

    @staticmethod
    def seed(of_task: int, noise_seed: str) -> int:
        """Of a client's stream."""
        return _of_the_system(128) if noise_seed == "os" else of_task

    def __call__(self, scales: Sequence[float]) -> Tensor:
        """As clients one after the other have it."""
        noise = torch.zeros(len(scales), self._d)
        for row, scale, stream in zip(noise, scales, self._streams, strict=False):
            add_noise(row, scale, stream)
        return noise


@final
class OfTheDevice:
    """By a generator of the device for each client, some steps ahead: few launches.

    How far ahead depends on the model alone, so that the noise does not depend on the block.
    """

    def __init__(self, seeds: Sequence[int], d: int, device: torch.device) -> None:
        self._streams = [torch_generator(seed, device) for seed in seeds]
        self._d, self._device = d, device
        self._ahead = max(1, DRAWN_AT_ONCE // d)
        self._step = 0
        self._drawn = torch.empty(0)

    @staticmethod
    def seed(of_task: int, noise_seed: str) -> int:
        """Of a client's stream: as many bits as the generator takes."""
        return _of_the_system(64) if noise_seed == "os" else seed_for(of_task, "noise")

    def __call__(self, scales: Sequence[float]) -> Tensor:
        """Float32, of the device's own generator."""
        a, place = len(scales), self._step % self._ahead
        self._step += 1
        if not any(scales):
            return torch.zeros(a, self._d, device=self._device)
        if place == 0:
            self._drawn = torch.empty(a, self._ahead, self._d, device=self._device)
            for of_client, stream in zip(self._drawn, self._streams, strict=False):
                of_client.normal_(generator=stream)
        factors = on_device(np.array(scales, dtype=np.float32), self._device)
        return self._drawn[:a, place] * factors[:, None]
