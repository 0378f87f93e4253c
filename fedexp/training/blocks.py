"""The steps of local training for a block of clients at once (`fedexp.core.blocks`).

As `fedexp.training.steps`, with a client's axis in front of every tensor. All batches of a round
are drawn before its first step, from the very streams that clients one after the other draw from.
So the host knows every shape beforehand, the device gets one list of rows, and in the loop nothing
waits for it. A batch that is smaller than the largest of its step is filled up with its own first
example, at weight 0. Who has made all its steps is no longer computed, and stays where it is.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from fedexp.core.blocks import Block, TrainsBlocks
from fedexp.core.devices import on_device
from fedexp.core.rng import torch_generator
from fedexp.core.stacked import StackedModel, mean_losses
from fedexp.core.types import Adjust, ClientReport
from fedexp.training.steps import DRAWS, MOST_NUMBERS, Gradients, Work

Batches = Sequence[np.ndarray]
"""One client's: which of its examples each step takes."""


@final
@dataclass(frozen=True)
class BlockStep:
    """What one batch of every client that is not done says; these are the first ones."""

    gradients: Gradients  # [k, *shape] one a parameter; the next step may overwrite them
    losses: Tensor  # [a] mean loss of each batch; 0 without examples
    examples: tuple[int, ...]  # [a] in each batch


class BlockSteps(Protocol):
    """Makes the steps of a block's round, on the models as they are when each one is asked for."""

    def __call__(self, block: Block, work: Work) -> Generator[BlockStep, None, None]:
        """As many as the largest client makes."""


@final
@dataclass(frozen=True)
class Gathered:
    """The examples of one step, on the device: of the first a clients, up to b of each."""

    x: Tensor  # [a, b, *shape] as the module takes them
    y: Tensor  # [a, b, ...]
    there: Tensor  # [a, b] float32: 1 for an example, 0 for what fills up
    examples: tuple[int, ...]  # [a]


@runtime_checkable
class StepBlockTrainer(TrainsBlocks, Protocol):
    """A trainer of blocks that goes step by step, and does not mind who makes the steps."""

    def work(self) -> Work:
        """How much a client trains in a round."""

    def train_block(
        self, block: Block, adjust: Adjust = ..., steps: BlockSteps = ...
    ) -> list[ClientReport]:
        """Train on `steps`; on ordinary ones if none are given."""


def ordinary_block_steps(block: Block, work: Work) -> Generator[BlockStep, None, None]:
    """Gradients of the mean loss of batches, drawn anew in every epoch.

    One pass forward and backward through all models a step.
    """
    model = block.model
    clients = zip(block.labels, block.tasks, strict=True)
    batches = [_of_epochs(work, labels, task.seed) for labels, task in clients]
    for step in gathered_steps(block, batches):
        a = len(step.examples)
        some = model.parameters if a == len(model) else [p[:a] for p in model.parameters]
        counted = step.there
        if (ignored := model.task.ignored) is not None:
            counted = counted * step.y.ne(ignored)
        weights = counted / counted.sum(dim=1, keepdim=True)
        losses = mean_losses(model, some, step.x, step.y, weights)
        # Where no loss depends on a parameter, its gradient is 0; so it is of who is done.
        gradients = torch.autograd.grad(losses.sum(), model.parameters, materialize_grads=True)
        yield BlockStep(gradients, losses.detach(), step.examples)


def _of_epochs(work: Work, y: Tensor, seed: int) -> Batches:
    n = len(y)
    size, per_epoch, goal = work.largest_batch(n), work.batches(n), work.steps_for(n)
    shuffle = torch_generator(seed)
    made: list[np.ndarray] = []
    while len(made) < goal:
        order = DRAWS[work.sampling](y, shuffle).numpy()
        made += [order[i * size : (i + 1) * size] for i in range(per_epoch)]
    return made[:goal]


@dataclass(frozen=True)
class _Padded:
    """A step's examples on the host."""

    rows: np.ndarray  # [a, b] int64, of the data
    there: np.ndarray  # [a, b] float32
    examples: tuple[int, ...]


def gathered_steps(block: Block, batches: Sequence[Batches]) -> Iterator[Gathered]:
    """The examples of every step; of as many steps at once as make `MOST_NUMBERS` numbers."""
    steps = [_padded(block, batches, step) for step in range(len(batches[0]))]
    most = MOST_NUMBERS // max(1, block.data.x[:1].numel())
    first = 0
    while first < len(steps):
        last, examples = first + 1, steps[first].rows.size
        while last < len(steps) and (examples := examples + steps[last].rows.size) <= most:
            last += 1
        yield from _gathered(block, steps[first:last])
        first = last


def _padded(block: Block, batches: Sequence[Batches], step: int) -> _Padded:
    now = [own[step] for own in batches if step < len(own)]
    shape = (len(now), max(1, *map(len, now)))
    rows, there = np.empty(shape, dtype=np.int64), np.zeros(shape, dtype=np.float32)
    for k, batch in enumerate(now):
        own = block.shards[k][batch] if len(batch) else block.shards[k][:1]
        rows[k, : len(own)], rows[k, len(own) :] = own, own[0]
        there[k, : len(batch)] = 1
    return _Padded(rows, there, tuple(map(len, now)))


def _gathered(block: Block, steps: Sequence[_Padded]) -> Iterator[Gathered]:
    device = block.model.device
    rows = on_device(np.concatenate([step.rows.reshape(-1) for step in steps]), device)
    there = on_device(np.concatenate([step.there.reshape(-1) for step in steps]), device)
    part = block.data.rows(rows)
    x, y = block.model.arrange(part), part.y
    start = 0
    for step in steps:
        shape, cut = step.rows.shape, slice(start, start + step.rows.size)
        yield Gathered(
            x[cut].view(*shape, *x.shape[1:]),
            y[cut].view(*shape, *y.shape[1:]),
            there[cut].view(shape),
            step.examples,
        )
        start = cut.stop


def train_steps_of(
    steps: BlockSteps,
    block: Block,
    work: Work,
    update: Callable[[Gradients], None],
    adjust: Adjust,
) -> list[ClientReport]:
    """Make every step of a block's round; `update` takes each one's gradients `[k, *shape]`.

    Args:
        steps: makes the gradients.
        block: its model holds the clients' starts; trained in place.
        work: how many steps, of which size.
        update: moves all the models along the gradients, number by number.
        adjust: what the gradients go through before.

    Returns:
        The reports, each with the mean loss over the steps that had examples, as a tensor `[]`.
    """
    model, k = block.model, len(block)
    total = torch.zeros(k, device=model.device)
    processed, with_examples = [0] * k, [0] * k
    model.training()
    with closing(steps(block, work)) as made:
        for step in made:
            a = len(step.examples)
            with _only_the_first(a, model):
                update(tuple(adjust(step.gradients)))
            total[:a] += step.losses
            for client, examples in enumerate(step.examples):
                processed[client] += examples
                with_examples[client] += examples > 0
            del step  # or the next gradients could not lie where these do
    losses = total / on_device(np.array(with_examples, dtype=np.float32), model.device)
    return [
        ClientReport(n, examples, {"loss": loss})
        for n, examples, loss in zip(block.sizes, processed, losses, strict=True)
    ]


def numbers_of_steps(work: Work, n: int, d: int, kept: int) -> int:
    """About how many numbers a client takes: see `TrainsBlocks.numbers_in_a_block`.

    The model, its gradients, where it started, two states of an optimiser, and room for one more.
    What a pass keeps is there with its gradients.
    """
    return 6 * d + 2 * kept * work.largest_batch(n)


@contextmanager
def _only_the_first(a: int, model: StackedModel) -> Iterator[None]:
    """The models of all others are afterwards as they were before."""
    if a == len(model):
        yield
        return
    done = [parameter.detach()[a:] for parameter in model.parameters]
    before = [values.clone() for values in done]
    yield
    torch._foreach_copy_(done, before)
