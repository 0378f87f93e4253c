"""Whether each example's gradient depends on that example alone, tried on the model itself.

DP-SGD clips what one example adds to the sum of a batch's gradients. That bounds one example only
if nothing that the others add depends on it, and modules do not show it: `x - x.mean(0)`, a
functional batch norm or attention over the batch are lines of a forward pass. So one example of
three is replaced, in training mode: by its negative, by a very large one and by one that is not a
number, which no arithmetic lets pass without a trace; and it is left out. What the two others come
to must not move.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, product
from typing import final

import torch
from torch import Tensor, nn

from fedexp.core.checks import InputError
from fedexp.core.flat import TaskModel
from fedexp.core.protocols import Model, Task
from fedexp.core.rng import seeded
from fedexp.core.text import called
from fedexp.training.per_example import channels_last, watching

TOLERANCE = 1e-4  # relative, of float32 sums: what mixes shows in full
BATCH, DRAWS = 8, 24  # examples and draws where it is looked for what mixes by chance
LARGE_DRAWS = 2  # of batches as large as a run's


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
    try:
        calm, name = answers(model, x, y), type(module).__name__
    except InputError:
        raise
    except Exception:  # it cannot be trained at all, which the rehearsal of the trainer says
        return
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
    _refuse_mixing_by_chance(model, x, y, name)
    _refuse_counting(model, x, y, name, calm)
    whole, added = _whole_gradient(model, x, y), calm.gradients.sum(dim=0)
    if not _alike(whole, added):
        raise InputError(
            "has gradients that are not those of its layers alone, one pass each: parameters that "
            "are used outside of their layer (F.linear with another layer's weight), or a hook "
            "that changes what a layer answers; examples' gradients cannot be told apart there",
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


def refuse_large_batches_that_mix(model: Model, x: Tensor, y: Tensor) -> None:
    """Raise InputError if one example of a batch as large as a run's changes the others' losses.

    The first one is replaced by one that is not a number, and by its opposite, of another label.

    Args:
        model: in training mode afterwards.
        x: examples `[n, *shape]` as the module takes them.
        y: their labels.
    """
    for seed, first in product(
        range(1, 1 + LARGE_DRAWS), (torch.full_like(x[0], torch.nan), -x[0])
    ):
        logits, losses = _passed(model, x, y, seed)
        if len(x) < 2 or not bool(losses.isfinite().all()):  # not comparable; who trains says so
            return
        replaced = x.clone()
        replaced[0] = first
        try:
            moved = _passed(model, replaced, _of_another_label(y, logits.shape[1]), seed)
        except Exception:  # it refuses such an example by itself, which is as well
            continue
        if not _alike(losses[1:], moved[1][1:]):
            by_model = not _alike(logits[1:], moved[0][1:])
            raise InputError(
                f"mixes the examples of a batch from a size on: when one of {len(x)} is replaced, "
                "the losses of the others move, so that clipping bounds no example; DP-SGD needs a "
                "model and a task that take every example by itself, whatever the batch",
                "model" if by_model else "task",
                type(model.module).__name__ if by_model else called(model.task),
            )


def _passed(model: Model, x: Tensor, y: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Logits and losses in training mode; whatever layers draw, they draw the same for a seed."""
    with seeded(seed, x.device), torch.no_grad():
        logits = model.module.train()(x)
        return logits, model.task.losses(logits, y)


def answers(model: TaskModel, x: Tensor, y: Tensor, seed: int = 0) -> Answers:
    """One pass in training mode; whatever layers draw, they draw the same for the same seed."""
    model.module.train()
    d, n = sum(p.numel() for p in model.parameters), len(x)
    gradients = torch.zeros(n, d)
    row = torch.zeros(d)
    places = zip(model.parameters, _places(model.parameters, row), strict=True)
    targets = {p: channels_last(p, place) for p, place in places}
    with seeded(seed, torch.device("cpu")), watching(model.module) as watch:
        logits = model.module(model.laid_out(x))
        losses = _losses(model.task, logits, y)
        layers = watch.gradients(losses, targets, "hooks")
        for example in range(n):
            row.zero_()
            for layer in layers:
                layer.add_weighted_sum(torch.eye(n)[example])
            gradients[example] = row
    return Answers(logits.detach(), losses.detach(), gradients)


def _losses(task: Task, logits: Tensor, y: Tensor) -> Tensor:
    """Each example's `[n]`; raises InputError for a task that gives anything else."""
    losses: object = task.losses(logits, y)
    if isinstance(losses, Tensor) and losses.shape == (len(y),):
        if losses.requires_grad or not logits.requires_grad:
            return losses
        given = "losses without a gradient"
    else:
        given = str(list(losses.shape)) if isinstance(losses, Tensor) else type(losses).__name__
    raise InputError(
        f"must give the loss of each of {len(y)} examples [{len(y)}], which DP-SGD needs the "
        f"gradients of, and gave {given} (losses)",
        "task",
        called(task),
    )


def _refuse_mixing_by_chance(model: TaskModel, x: Tensor, y: Tensor, name: str) -> None:
    """As above for what mixes now and then (mixup, a coin), or from a size on: many draws.

    Of a batch with one example that is not a number, the others' answers must be numbers.
    """
    n = len(x)
    x, y = x.repeat(BATCH, *[1] * (x.dim() - 1))[:BATCH], y.repeat(BATCH, *[1] * (y.dim() - 1))
    x[0], y = torch.nan, y[:BATCH]
    for seed in range(1, 1 + DRAWS):
        try:
            with seeded(seed, torch.device("cpu")), torch.no_grad():
                logits = model.module.train()(model.laid_out(x))
                losses = model.task.losses(logits, y)
        except Exception:  # it refuses such an example by itself, which is as well
            return
        if not bool(logits[1:].isfinite().all() and losses[1:].isfinite().all()):
            raise InputError(
                f"mixes the examples of a batch in some draws or sizes: in a batch of {BATCH}, one "
                f"without numbers spoils others (which it does not among {n}), so that clipping "
                "bounds no example; DP-SGD needs a model and a task that take every example by "
                "itself, in training mode too",
                "model",
                name,
            )


def _refuse_counting(model: TaskModel, x: Tensor, y: Tensor, name: str, calm: Answers) -> None:
    """As above for what goes by how many examples there are, as a loss that is divided by them.

    Where layers draw, fewer examples are others' draws: nothing can be compared there.
    """
    if not _alike(calm.gradients, answers(model, x, y, seed=1).gradients):
        return
    try:
        fewer = answers(model, x[1:], y[1:])
    except InputError:
        raise
    except Exception:  # it refuses so few by itself
        return
    for what in ("logits", "losses", "gradients"):
        if not _alike(getattr(calm, what)[1:], getattr(fewer, what)):
            raise InputError(
                f"goes by how many examples a batch has: when one of {len(x)} is left out, the "
                f"{what} of the others move (is a loss divided by their number?), so that clipping "
                "bounds no example; DP-SGD needs a model and a task that take every example by "
                "itself, in training mode too",
                "model",
                name,
            )


def _whole_gradient(model: TaskModel, x: Tensor, y: Tensor) -> Tensor:
    """The gradient `[d]` of the summed losses by autograd, laid out as `answers` has them."""
    model.module.train()
    with seeded(0, torch.device("cpu")):
        losses = model.task.losses(model.module(model.laid_out(x)), y)
    made = torch.autograd.grad(losses.sum(), model.parameters, materialize_grads=True)
    whole = torch.zeros(sum(p.numel() for p in model.parameters))
    for p, g, place in zip(model.parameters, made, _places(model.parameters, whole), strict=True):
        channels_last(p, place).copy_(g)
    return whole


def _places(parameters: list[nn.Parameter], row: Tensor) -> list[Tensor]:
    """Where each parameter's numbers stand in a row `[d]`, as views."""
    ends = accumulate(p.numel() for p in parameters)
    return [row[end - p.numel() : end] for p, end in zip(parameters, ends, strict=True)]


def _replacements(x: Tensor, y: Tensor, classes: int) -> list[tuple[Tensor, Tensor]]:
    """Batches that differ in their first example alone."""
    found = [(x, _of_another_label(y, classes))]
    for first in (-x[0], 1000 * x[1], torch.full_like(x[0], torch.nan)):
        replaced = x.clone()
        replaced[0] = first
        found.append((replaced, y))
    return found


def _of_another_label(y: Tensor, classes: int) -> Tensor:
    """Labels that differ in their first one alone."""
    other = y.clone()
    other[0] = (y[0] + 1) % classes if y.dim() == 1 else 1 - y[0]
    return other


def _alike(one: Tensor, other: Tensor) -> bool:
    scale = float(one.abs().max())
    return bool(other.isfinite().all()) and float((one - other).abs().max()) <= TOLERANCE * scale
