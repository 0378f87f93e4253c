"""What an adversary sees and knows, and what it makes of that. The truth is nowhere in here.

An attack receives an `Observation` and nothing else, so that what it recovers, it recovered.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from fedexp.core.normalise import Normalisation
from fedexp.core.protocols import Task
from fedexp.core.step_rule import StepRule


@dataclass(frozen=True)
class Knowledge:
    """What the adversary was told, exactly.

    `module` gives the architecture only; the weights that count are `params`.
    """

    module: nn.Module
    params: Tensor  # [d] the model that the clients started the round from
    normalisation: Normalisation  # between pixels in [0, 1] and what the model takes
    task: Task  # what labels mean
    input_shape: tuple[int, ...]  # (channels, height, width)
    num_classes: int
    batch_size: int  # examples behind one client's update
    rule: StepRule  # what a local step makes of its gradients
    local_steps: int  # behind the update
    labels: Tensor | None  # [batch_size] int64, in any order; None: not shared
    clip_norm: float | None  # every example's gradient was clipped to it (DP-SGD); None: none was
    minibatch: int | None = None  # examples of a step, in an order nobody told; None: all of them
    images: Tensor | None = None  # [n, C, H, W] others of the kind, in [0, 1]; None: it has none

    def sizes_of_an_epoch(self) -> list[int]:
        """Examples in each of the steps that see every example once."""
        size = self.minibatch or self.batch_size
        whole, rest = divmod(self.batch_size, size)
        return [size] * whole + ([rest] if rest else [])

    def alike(self, other: Knowledge) -> bool:
        """Whether both say the same, but for the labels."""
        same = ("module", "task", "images")
        equal = [
            "input_shape",
            "num_classes",
            "batch_size",
            "minibatch",
            "rule",
            "local_steps",
            "clip_norm",
        ]
        return (
            all(getattr(self, name) is getattr(other, name) for name in same)
            and all(getattr(self, name) == getattr(other, name) for name in equal)
            and torch.equal(self.params, other.params)
            and self.normalisation.equals(other.normalisation)
        )

    def to(self, device: torch.device) -> Knowledge:
        """With its numbers on another device; the module, which gives none, stays."""
        return replace(
            self,
            params=self.params.to(device),
            normalisation=self.normalisation.to(device),
            labels=None if self.labels is None else self.labels.to(device),
        )

    def parameters(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """The trainable parameters by name, cut from `params`, as leaves without gradient."""
        trainable = [(name, p) for name, p in self.module.named_parameters() if p.requires_grad]
        sizes = [p.numel() for _, p in trainable]
        pieces = self.params[: sum(sizes)].to(dtype).split(sizes)
        return {
            name: piece.view(p.shape) for (name, p), piece in zip(trainable, pieces, strict=True)
        }

    def logits(self, parameters: Mapping[str, Tensor], pixels: Tensor) -> Tensor:
        """`[n, classes]` for pixels `[n, C, H, W]` in [0, 1], in the parameters' dtype."""
        named = chain(self.module.named_parameters(), self.module.named_buffers())
        fixed = {name: t.to(pixels.device) for name, t in named if name not in parameters}
        weights = {**fixed, **parameters}
        outputs = functional_call(self.module, weights, (self.normalisation.x(pixels),))
        assert isinstance(outputs, Tensor)
        return outputs


@dataclass(frozen=True)
class Observation:
    """One message that the server received, and the knowledge shared."""

    update: Tensor  # [d] float32, delta = local - global; of several clients: their mean
    clients: int  # whose updates are in it: 1 in the clear, more behind secure aggregation
    knowledge: Knowledge
    seen: Tensor | None = None  # [d] bool: the numbers that a compressing channel sent; None: all

    def seen_parameters(self) -> Tensor:
        """Of the trainable parameters, end to end, which were sent: float32, 1 or 0."""
        p = sum(
            parameter.numel() for parameter in self.knowledge.parameters(torch.float32).values()
        )
        if self.seen is None:
            return torch.ones(p, device=self.update.device)
        return self.seen[:p].float()

    def to(self, device: torch.device) -> Observation:
        """On another device: an attack works where what it sees lies."""
        seen = None if self.seen is None else self.seen.to(device)
        return Observation(self.update.to(device), self.clients, self.knowledge.to(device), seen)

    def gradient(self) -> dict[str, Tensor]:
        """The mean gradient that explains the update as plain steps, by parameter, float64.

        Exact for one step, and 0 where nothing was sent. For more it is the naive reading of the
        update, as if all were taken where the first was; what the steps do by themselves (weight
        decay) is taken out of it.
        """
        known = self.knowledge
        weights, drift = known.rule.unrolled(known.local_steps)
        gone = -self.update.double() - drift * known.params.double()
        if self.seen is not None:
            gone = torch.where(self.seen, gone, 0.0)
        shapes = known.parameters(torch.float64)
        sizes = [p.numel() for p in shapes.values()]
        pieces = (gone[: sum(sizes)] / sum(weights)).split(sizes)
        return {
            name: piece.view(shapes[name].shape) for name, piece in zip(shapes, pieces, strict=True)
        }


@dataclass(frozen=True)
class Reconstruction:
    """What an attack believes was in the batch, in no particular order."""

    images: Tensor  # [k, C, H, W] float32, pixels in [0, 1]; k may be less than the batch
    labels: Tensor  # [k] int64
    loss: float  # the attack's own objective at the end, the smaller the better; NaN: it has none

    def cpu(self) -> Reconstruction:
        """Where it can be looked at."""
        return Reconstruction(self.images.cpu(), self.labels.cpu(), self.loss)


def least(found: Iterable[Reconstruction]) -> Reconstruction:
    """The one with the smallest loss, of several starts; NaN counts as the largest."""
    return min(found, key=lambda f: math.inf if math.isnan(f.loss) else f.loss)


class UpdateAttack(Protocol):
    """Reconstructs the examples behind an update."""

    def __call__(self, observation: Observation, rng: np.random.Generator) -> Reconstruction:
        """The best guess; raises InputError where it cannot work at all."""


@runtime_checkable
class LearnsFromImages(Protocol):
    """An attack whose adversary has images of the kind, which nobody trained on."""

    @property
    def images_wanted(self) -> int:
        """How many, at most; 0: none."""


@runtime_checkable
class TakesSeveral(Protocol):
    """An attack that is quicker on several updates at once; without it each is attacked alone."""

    def at_once(self, knowledge: Knowledge) -> int:
        """How many; by what is known alone, so that it is the same on every machine."""

    def together(
        self, observations: Sequence[Observation], rngs: Sequence[np.random.Generator]
    ) -> list[Reconstruction]:
        """Of updates that differ in `update`, `clients` and labels only, each with its own stream.

        What comes back of one does not depend on the others, but for rounding.
        """
