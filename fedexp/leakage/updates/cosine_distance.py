"""How far the update that given images would have led to points from the one observed.

    1 - <g(x), g*> / (||g(x)|| ||g*||)

g* is the observed gradient, all layers in one; g(x) the one that the images of the local steps
explain, which is the mean along the steps, derived through the weights that they lead to
(`way=derived`, the papers'), or those weights are held and each step weighs what fits best
(`way=held`, `fitted_gradient.py`: better where steps overshoot).

Source: Geiping et al., "Inverting Gradients", NeurIPS 2020, equation 4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

import torch
from torch import Tensor
from torch.nn import functional as F

from fedexp.leakage.observation import Knowledge, Observation
from fedexp.leakage.updates.expected_update import Batch, mean_gradient
from fedexp.leakage.updates.factored_products import (
    Layers,
    linear_layers,
    products_with_gradient,
)
from fedexp.leakage.updates.fitted_gradient import fitted_gradient

HELD, DERIVED = "held", "derived"
WAYS = (HELD, DERIVED)
TINY = 1e-16  # of a squared norm: a gradient of zeros points nowhere


@final
@dataclass(frozen=True)
class CosineDistance:
    """The distance, differentiable in the images.

    Args:
        knowledge: the model and the step rule.
        way: "held" or "derived", see the module; has no effect on one step.
    """

    knowledge: Knowledge
    way: str

    def __post_init__(self) -> None:
        # Asked now: where slopes are taken, autograd cannot be asked what hangs on a weight.
        _ = self._linear_layers

    def __call__(
        self, batches: Sequence[Batch], observed: Tensor, seen: Tensor | None = None
    ) -> Tensor:
        """`[]`, between 0 and 2.

        Args:
            batches: the images and labels of each local step.
            observed: the direction observed `[numbers]`, as `direction` gives it.
            seen: which of its numbers were sent, 1 or 0, alike; None: all.
        """
        parameters = self.knowledge.parameters(torch.float32)
        sizes = [p.numel() for p in parameters.values()]
        # Layer by layer: to lay them end to end would take longer than the products.
        wanted = dict(zip(parameters, observed.split(sizes), strict=True))
        sent = None if seen is None else dict(zip(parameters, seen.split(sizes), strict=True))
        if sent is None and self._is_factored(len(batches)):
            known, layers = self.knowledge, self._linear_layers
            along, squared = products_with_gradient(known, parameters, *batches[0], wanted, layers)
        else:
            expected = self._expected(parameters, batches, wanted, sent)
            along = torch.stack([g @ wanted[name] for name, g in expected.items()]).sum()
            squared = torch.stack([g @ g for g in expected.values()]).sum()
        return 1 - along / squared.clamp_min(TINY).sqrt()

    def numbers_written(self, steps: int) -> int:
        """How many numbers of a gradient a call writes, with so many steps and nothing unsent."""
        every = sum(p.numel() for p in self.knowledge.parameters(torch.float32).values())
        if not self._is_factored(steps):
            return every
        return every - sum(layer.weight.numel() for layer in self._linear_layers.values())

    def _is_factored(self, steps: int) -> bool:
        # The weights after a step are made of its gradient, and each example has its own norm.
        return steps == 1 and self.knowledge.clip_norm is None

    @cached_property
    def _linear_layers(self) -> Layers:
        return linear_layers(self.knowledge)

    def _expected(
        self,
        parameters: Mapping[str, Tensor],
        batches: Sequence[Batch],
        wanted: Mapping[str, Tensor],
        sent: Mapping[str, Tensor] | None,
    ) -> Mapping[str, Tensor]:
        if len(batches) > 1 and self.way == HELD:
            return fitted_gradient(self.knowledge, parameters, batches, wanted, sent)
        mean = mean_gradient(self.knowledge, parameters, batches)
        flat = {name: g.reshape(-1) for name, g in mean.items()}
        return flat if sent is None else {name: g * sent[name] for name, g in flat.items()}


def direction(observation: Observation) -> Tensor:
    """Where the observed gradient points: `[numbers]` float32, of norm 1."""
    flat = torch.cat([g.reshape(-1) for g in observation.gradient().values()])
    return F.normalize(flat, dim=0).float()
