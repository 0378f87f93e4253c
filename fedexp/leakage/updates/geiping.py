"""Inverting gradients: images whose gradient points where the observed one does, and are smooth.

    minimise over x in [0, 1]   1 - <g(x), g*> / (||g(x)|| ||g*||) + tv (mean |dx| + mean |dy|)

g* is the observed gradient, all layers in one; g(x) the one that images x with the labels found
first would have given, after several local steps what explains them (unrolled), or as if there
were one (naive); |dx| and |dy| differences of neighbouring pixels. Unrolled, g(x) is the mean along
the steps, derived through the weights that they lead to (`way=derived`, the paper's), or those
weights are held and each step weighs what fits best (`way=held`, `fitted_gradient.py`: better where
steps overshoot). Adam sees only the sign of the gradient in x, its learning rate falls to a tenth
after 3/8, 5/8 and 7/8 of the iterations, and pixels are clamped after every one. Unlike matching
squares it also works on models with ReLU.

Source: Geiping, Bauermeister, Droege and Moeller, "Inverting Gradients - How easy is it to break
privacy in federated learning?", NeurIPS 2020, section 4 and supplement A. There `tv` and `lr` are
in units of normalised pixels, here in those of pixels in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import grad, vmap

from fedexp.core.checks import at_least, non_negative, one_of, positive
from fedexp.leakage.observation import Knowledge, Observation, Reconstruction
from fedexp.leakage.updates.expected_update import mean_gradient
from fedexp.leakage.updates.fitted_gradient import fitted_gradient
from fedexp.leakage.updates.label_recovery import assumed_labels

HELD, DERIVED = "held", "derived"

DECAY = 0.1  # of the learning rate, at each milestone
MILESTONES = (3 / 8, 5 / 8, 7 / 8)  # shares of the iterations
TINY = 1e-16  # of a squared norm: a gradient of zeros points nowhere
MOST_AT_ONCE = 16  # updates
NUMBERS_AT_ONCE = 2**20  # in their gradients: more do not stay in the processor's cache


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
        way: "held" or "derived", see the module; has no effect on one step, or if not unrolled.
    """

    total_variation: float
    lr: float
    iterations: int
    restarts: int
    unrolled: bool
    way: str = DERIVED  # as in runs of the time before there was such a key

    def __post_init__(self) -> None:
        non_negative(total_variation=self.total_variation)
        positive(lr=self.lr)
        one_of((HELD, DERIVED), way=self.way)
        at_least(1, iterations=self.iterations, restarts=self.restarts)

    def __call__(self, observation: Observation, rng: np.random.Generator) -> Reconstruction:
        """`batch_size` images with the labels shared, or else recovered.

        Raises:
            InputError: labels have to be recovered, and the last layer is not linear.
        """
        return self.together([observation], [rng])[0]

    def at_once(self, knowledge: Knowledge) -> int:
        """Updates of small models are attacked side by side: a step has few numbers to work on."""
        return max(1, min(MOST_AT_ONCE, NUMBERS_AT_ONCE // len(knowledge.params)))

    def together(
        self, observations: Sequence[Observation], rngs: Sequence[np.random.Generator]
    ) -> list[Reconstruction]:
        """What each would be by itself, up to rounding; see `TakesSeveral`."""
        labels = torch.stack([assumed_labels(observation) for observation in observations])
        starts = [self._descend(observations, labels, rngs) for _ in range(self.restarts)]
        return [
            min(found, key=lambda f: math.inf if math.isnan(f.loss) else f.loss)
            for found in zip(*starts, strict=True)
        ]

    def _descend(
        self,
        observations: Sequence[Observation],
        labels: Tensor,
        rngs: Sequence[np.random.Generator],
    ) -> list[Reconstruction]:
        known = observations[0].knowledge
        parameters = known.parameters(torch.float32)
        sizes = [p.numel() for p in parameters.values()]
        steps = known.local_steps if self.unrolled else 1
        observed = torch.stack(
            [F.normalize(_flat(o.gradient()), dim=0).float() for o in observations]
        )
        seen = torch.stack([o.seen_parameters() for o in observations])

        def objective(pixels: Tensor, labels: Tensor, observed: Tensor, seen: Tensor) -> Tensor:
            # Layer by layer: to lay them end to end would take longer than the products.
            wanted = dict(zip(parameters, observed.split(sizes), strict=True))
            sent = dict(zip(parameters, seen.split(sizes), strict=True))
            along = [(pixels, labels)] * steps
            if steps > 1 and self.way == HELD:
                expected = fitted_gradient(known, parameters, along, wanted, sent)
            else:
                mean = mean_gradient(known, parameters, along)
                expected = {name: g.reshape(-1) * sent[name] for name, g in mean.items()}
            pairs = [(g, wanted[name]) for name, g in expected.items()]
            along = torch.stack([g @ there for g, there in pairs]).sum()
            squared = torch.stack([g @ g for g, _ in pairs]).sum()
            cosine = along / squared.clamp_min(TINY).sqrt()
            return 1 - cosine + self.total_variation * _total_variation(pixels)

        shape = (known.batch_size, *known.input_shape)
        drawn = [torch.from_numpy(rng.random(shape, dtype=np.float32)) for rng in rngs]
        pixels = torch.stack(drawn)
        slope = _of_each(grad(objective), pixels, labels, observed, seen)
        optimizer = torch.optim.Adam([pixels], lr=self.lr)
        milestones = [math.ceil(share * self.iterations) for share in MILESTONES]
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, gamma=DECAY)
        for _ in range(self.iterations):
            pixels.grad = slope(pixels, labels, observed, seen).sign()
            optimizer.step()
            schedule.step()
            pixels.clamp_(0, 1)
        found = zip(pixels, labels, observed, seen, strict=True)
        return [Reconstruction(x, y, float(objective(x, y, *there))) for x, y, *there in found]


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


def _total_variation(pixels: Tensor) -> Tensor:
    return pixels.diff(dim=2).abs().mean() + pixels.diff(dim=3).abs().mean()


def _flat(gradient: dict[str, Tensor]) -> Tensor:
    return torch.cat([g.reshape(-1) for g in gradient.values()])
