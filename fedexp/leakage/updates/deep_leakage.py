"""Deep leakage from gradients: images whose gradient is the one observed, by L-BFGS.

    minimise over x (and soft labels y)   1/L sum_l ||g_l(x, y) - g*_l||^2 / ||g*_l||^2   (relative)
                                              sum_l ||g_l(x, y) - g*_l||^2                (plain)

g* is the observed gradient, layer by layer l, L the layers; g(x, y) the one that images x with
labels y would have given. DLG looks for the labels too, as softmax(u) with u free; iDLG reads them
off the last layer first (`labels.py`). After several local steps g is the mean gradient along the
steps (unrolled), or the update is read as if it were of one (naive).

Both need a model that can be derived twice: sigmoids, not ReLU. Differs from the papers' code in
what made it work where that fails: every layer counts alike (there, and with `objective=plain`, it
is a sum of plain squares, in which small layers vanish), the line search satisfies the strong Wolfe
conditions, no tolerance ends it early, float64.

Source: Zhu, Liu and Han, "Deep Leakage from Gradients", NeurIPS 2019, algorithm 1 (DLG); Zhao,
Mopuri and Bilen, "iDLG: Improved Deep Leakage from Gradients", 2020, algorithm 1 (iDLG).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from fedexp.core.checks import at_least, non_negative, one_of
from fedexp.leakage.observation import Observation, Reconstruction
from fedexp.leakage.updates.expected_update import mean_gradient
from fedexp.leakage.updates.label_recovery import assumed_labels

STEP_ITERATIONS = 20  # of L-BFGS, in one call of torch's optimiser


@final
@dataclass(frozen=True)
class DeepLeakage:
    """DLG (`labels="joint"`) and iDLG (`labels="recovered"`).

    Args:
        labels: "joint", found together with the images, or "recovered", first. Labels that were
            shared are taken in both.
        iterations: steps of L-BFGS from one start, of up to 20 iterations each.
        restarts: starts at most; the one with the least loss counts.
        tolerance: the loss below which the images are found: no more steps, no more starts.
        unrolled: explain the update through the local steps instead of as one gradient.
        objective: "relative" or the papers' "plain", see the module; `tolerance` is in its unit.
    """

    labels: str
    iterations: int
    restarts: int
    tolerance: float
    unrolled: bool
    objective: str = "relative"  # as in runs of the time before there was such a key

    def __post_init__(self) -> None:
        one_of(["joint", "recovered"], labels=self.labels)
        one_of(["relative", "plain"], objective=self.objective)
        at_least(1, iterations=self.iterations, restarts=self.restarts)
        non_negative(tolerance=self.tolerance)

    def __call__(self, observation: Observation, rng: np.random.Generator) -> Reconstruction:
        """`batch_size` images with their labels.

        Raises:
            InputError: labels are to be recovered, and the last layer is not linear.
        """
        known = observation.knowledge
        joint = self.labels == "joint" and known.labels is None
        labels = None if joint else assumed_labels(observation)
        best = self._descend(observation, labels, rng)
        for _ in range(self.restarts - 1):
            if best.loss < self.tolerance:
                break
            best = min(best, self._descend(observation, labels, rng), key=lambda found: found.loss)
        return best

    def _descend(
        self, observation: Observation, labels: Tensor | None, rng: np.random.Generator
    ) -> Reconstruction:
        known = observation.knowledge
        parameters = known.parameters(torch.float64)
        steps = known.local_steps if self.unrolled else 1
        observed = observation.gradient()
        sizes = self._sizes(observed)

        pieces = (
            observation.seen_parameters().double().split([g.numel() for g in observed.values()])
        )
        seen = {n: p.view_as(g) for (n, g), p in zip(observed.items(), pieces, strict=True)}

        device = observation.update.device
        pixels = torch.from_numpy(rng.random((known.batch_size, *known.input_shape))).to(device)
        drawn = rng.standard_normal((known.batch_size, known.num_classes))
        logits = torch.from_numpy(drawn).to(device)
        free = [pixels.requires_grad_()]
        if labels is None:
            free.append(logits.requires_grad_())
        optimizer = torch.optim.LBFGS(
            free,
            lr=1,
            max_iter=STEP_ITERATIONS,
            tolerance_grad=0,
            tolerance_change=0,
            line_search_fn="strong_wolfe",
        )
        least = math.inf
        best = [tensor.detach().clone() for tensor in free]

        def closure() -> float:
            nonlocal least
            targets = logits.softmax(dim=1) if labels is None else labels
            expected = mean_gradient(known, parameters, [(pixels, targets)] * steps)
            errors = [
                (seen[n] * expected[n] - g).square().sum() / sizes[n] for n, g in observed.items()
            ]
            loss = torch.stack(errors).mean()
            for tensor, gradient in zip(free, torch.autograd.grad(loss, free), strict=True):
                tensor.grad = gradient
            value = float(loss.detach())
            # Kept on the way, as a failed line search may end anywhere, also at NaN.
            if value < least:
                least = value
                for kept, tensor in zip(best, free, strict=True):
                    kept.copy_(tensor.detach())
            return value

        for _ in range(self.iterations):
            before = least
            optimizer.step(closure)
            if least < self.tolerance or least == before:
                break
        found = best[1].argmax(dim=1) if labels is None else labels
        return Reconstruction(best[0].clamp(0, 1).float(), found, least)

    def _sizes(self, observed: Mapping[str, Tensor]) -> dict[str, float]:
        """What each layer's squared error is divided by, before the mean over the layers."""
        if self.objective == "plain":  # so that the mean of L is the sum
            return dict.fromkeys(observed, 1 / len(observed))
        # A layer that did not move is compared as it is: it has no size to be measured by.
        return {name: float(g.square().sum()) or 1.0 for name, g in observed.items()}
