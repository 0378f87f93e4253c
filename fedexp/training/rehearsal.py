"""What training moves beside the parameters, found by making a few steps on made-up examples.

A buffer that training moves (a running statistic, a count, the vectors of spectral norm) would be
averaged over the clients like a parameter, which means something for few of them. Its name does not
say so: it is one that is not as it was after a step in training mode. Whatever else a module
remembers (frozen parameters that move, attributes) is neither sent nor put back, so that a client
would start with what another one left, and not with what the server sent.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from fedexp.core.checks import InputError
from fedexp.core.protocols import Task
from fedexp.core.rng import lent, seeded, torch_generator

STEPS = 3
EXAMPLES = 3
LEARNING_RATE = 0.01


@final
@dataclass(frozen=True)
class Moved:
    """What steps of training changed beside the trainable parameters, by name."""

    buffers: tuple[str, ...]
    frozen: tuple[str, ...]  # parameters that are not trained
    elsewhere: bool  # with all of those put back, the module answers otherwise than before


def made_up(shape: tuple[int, ...], n: int = EXAMPLES) -> Tensor:
    """Examples `[n, *shape]` as a model takes them: mean 0, deviation 1."""
    return torch.randn(n, *shape, generator=torch_generator(0))


def refuse_what_moves(module: nn.Module, task: Task, x: Tensor, y: Tensor, averaged: bool) -> None:
    """Raise InputError if training moves what no client sends, or what is not meant to be averaged.

    Args:
        module: left as it is.
        task: what the labels mean.
        x: examples `[n, *shape]` as the module takes them, n at least 2.
        y: their labels.
        averaged: whether moving buffers are to be averaged over the clients (`buffers=average`).
    """
    moved, name = rehearse(module, task, x, y), type(module).__name__
    if moved.buffers and not averaged:
        place, _, buffer = moved.buffers[0].rpartition(".")
        layer = type(module.get_submodule(place)).__name__
        raise InputError(
            f"layer {place or '(the model itself)'} ({layer}) keeps running statistics (training "
            f"moves its buffer {buffer}): use a layer without (GroupNorm for BatchNorm), or "
            "buffers=average to average them over the clients",
            "model",
            name,
        )
    if moved.frozen:
        raise InputError(
            f"training moves its parameter {moved.frozen[0]}, which is frozen and no client sends; "
            "make it a buffer, or train it",
            "model",
            name,
        )
    if moved.elsewhere:
        raise InputError(
            "remembers examples outside its parameters and buffers, so that a client would start "
            "with what another one left; keep that in a registered buffer, or not at all (or it "
            "draws at random in evaluation, as F.dropout does without training=self.training)",
            "model",
            name,
        )


def rehearse(module: nn.Module, task: Task, x: Tensor, y: Tensor) -> Moved:
    """Train a copy of `module` for some steps on `n` examples, and look at it."""
    trained = copy.deepcopy(module)
    for name, tensor in _tensors(trained).items():
        if tensor.numel() > 1 and 0 in tensor.stride():
            raise InputError(
                f"numbers of its {name} share one place in memory (expand), so that no model can "
                "be put there; register a copy (clone)",
                "model",
                type(module).__name__,
            )
    parameters = [p for p in trained.parameters() if p.requires_grad]
    start = _values(trained)
    with seeded(0, torch.device("cpu")):
        before = _answers(trained, x)
        trained.train()
        with suppress(Exception):  # a step that fails is said by who rehearses the trainer
            for _ in range(STEPS):
                loss = task.loss(trained(x), y)
                gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
                with torch.no_grad():
                    for parameter, gradient in zip(parameters, gradients, strict=True):
                        if gradient is not None:
                            parameter.sub_(LEARNING_RATE * gradient)
        end = _values(trained)
        changed = [name for name in end if name not in start or not _same(start[name], end[name])]
        with torch.no_grad():
            for name, tensor in _tensors(trained).items():
                if name in start:
                    tensor.copy_(start[name])
        after = _answers(trained, x)
    buffers = dict(trained.named_buffers())
    still = {name for name, p in trained.named_parameters() if not p.requires_grad}
    return Moved(
        buffers=tuple(name for name in changed if name in buffers),
        frozen=tuple(name for name in changed if name in still),
        elsewhere=not torch.allclose(before, after, rtol=1e-4, atol=1e-5, equal_nan=True),
    )


def _answers(module: nn.Module, x: Tensor) -> Tensor:
    """In evaluation, and in training mode if it answers there, with the same draws each time."""
    with torch.no_grad():
        answers: Tensor = module.eval()(x).clone()
        with suppress(Exception), lent(1, torch.device("cpu")):
            return torch.stack([answers, module.train()(x)])
    return answers


def _tensors(module: nn.Module) -> Mapping[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _values(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in _tensors(module).items()}


def _same(one: Tensor, other: Tensor) -> bool:
    """Equal, with what is not a number in the same places."""
    return one.shape == other.shape and bool(
        ((one == other) | ((one != one) & (other != other))).all()
    )
