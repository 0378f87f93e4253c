"""Whether each example's gradient depends on that example alone, tried on the model itself.

DP-SGD clips what one example adds to the sum of a batch's gradients. That bounds one example only
if nothing that the others add depends on it, and modules do not show it: `x - x.mean(0)`, a
functional batch norm or attention over the batch are lines of a forward pass. So one example of
three is replaced, in training mode: by its negative, by a very large one and by one that is not a
number, which no arithmetic lets pass without a trace. What the two others come to must not move.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import final

import torch
from torch import Tensor, nn

from fedexp.core.checks import InputError
from fedexp.core.flat import TaskModel
from fedexp.core.protocols import Task
from fedexp.core.rng import seeded
from fedexp.training.per_example import channels_last, watching

TOLERANCE = 1e-4  # relative, of float32 sums: what mixes shows in full


@final
@dataclass(frozen=True)
class Answers:
    """What a batch of n examples comes to, example by example."""

    logits: Tensor  # [n, num_classes]
    losses: Tensor  # [n]
    gradients: Tensor  # [n, d]


def refuse_examples_that_mix(module: nn.Module, task: Task, x: Tensor, y: Tensor) -> None:
    """Raise InputError if one of three examples changes what the two others come to.

    Args:
        module: left as it is.
        task: whose losses are tried too: they must not look at other labels.
        x: examples `[3, *shape]` as the module takes them.
        y: their labels.
    """
    model = TaskModel(module, torch.device("cpu"), task)
    calm, name = answers(model, x, y), type(module).__name__
    for replaced, label in _replacements(x, y, calm.logits.shape[1]):
        try:
            moved = answers(model, replaced, label)
        except InputError:
            raise
        except Exception:  # it refuses such an example by itself, which is as well
            continue
        for what in ("logits", "losses", "gradients"):
            if not _alike(getattr(calm, what)[1:], getattr(moved, what)[1:]):
                raise InputError(
                    f"mixes the examples of a batch: when one of {len(x)} is replaced, the {what} "
                    "of the others move, so that clipping bounds no example; DP-SGD needs a model "
                    "and a task that take every example by itself, in training mode too",
                    "model",
                    name,
                )
    again = answers(model, x, y)
    if not _alike(calm.gradients, again.gradients):
        raise InputError(
            "remembers examples of earlier batches, so that clipping bounds no example",
            "model",
            name,
        )


def answers(model: TaskModel, x: Tensor, y: Tensor) -> Answers:
    """One pass in training mode; whatever layers draw, they draw the same each time."""
    model.module.train()
    d, n = sum(p.numel() for p in model.parameters), len(x)
    gradients = torch.zeros(n, d)
    ends = list(accumulate(p.numel() for p in model.parameters))
    row = torch.zeros(d)
    targets = {
        p: channels_last(p, row[end - p.numel() : end])
        for p, end in zip(model.parameters, ends, strict=True)
    }
    with seeded(0, torch.device("cpu")), watching(model.module) as watch:
        logits = model.module(model.laid_out(x))
        losses = model.task.losses(logits, y)
        layers = watch.gradients(losses, targets, "hooks")
        for example in range(n):
            row.zero_()
            for layer in layers:
                layer.add_weighted_sum(torch.eye(n)[example])
            gradients[example] = row
    return Answers(logits.detach(), losses.detach(), gradients)


def _replacements(x: Tensor, y: Tensor, classes: int) -> list[tuple[Tensor, Tensor]]:
    """Batches that differ in their first example alone."""
    other = y.clone()
    other[0] = (y[0] + 1) % classes if y.dim() == 1 else 1 - y[0]
    found = [(x, other)]
    for first in (-x[0], 1000 * x[1], torch.full_like(x[0], torch.nan)):
        replaced = x.clone()
        replaced[0] = first
        found.append((replaced, y))
    return found


def _alike(one: Tensor, other: Tensor) -> bool:
    scale = float(one.abs().max())
    return bool(other.isfinite().all()) and float((one - other).abs().max()) <= TOLERANCE * scale
