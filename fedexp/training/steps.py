"""The steps of local training, wherever their gradients come from and whatever is done with them.

One loop for every trainer. A `StepSource` makes the steps: `ordinary_steps` here, DP-SGD's in
`dp_sgd.py`. The trainer's `update` moves the model before the next step is made.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, fields, replace
from typing import Protocol, final, runtime_checkable

import torch
from torch import Tensor

from fedexp.core.capabilities import task_of_client
from fedexp.core.checks import InputError, at_least, one_of, positive
from fedexp.core.examples import Split
from fedexp.core.protocols import Model, Task, Trainer
from fedexp.core.rng import seeded, torch_generator
from fedexp.core.step_rule import StepRule
from fedexp.core.text import called
from fedexp.core.types import Adjust, ClientReport, ClientTask

Gradients = tuple[Tensor, ...]

SHUFFLED, BALANCED = "shuffled", "balanced"
FLOAT32, BFLOAT16 = "float32", "bfloat16"

MOST_NUMBERS = 2**24  # in what is made ready at once
MOST_GATHERED = 4096  # examples made ready at once: stored ones are smaller than what models take


@final
@dataclass(frozen=True)
class Work:
    """How much a client trains in a round, and of what its steps are made.

    Args:
        batch_size: examples a step; None takes all the client's examples (the papers' B = inf).
            The last batch of an epoch may be smaller, unless `drop_last`.
        epochs: passes over the client's examples; may be a fraction, of which at least one step is
            made.
        steps: steps, instead of epochs; exactly one of the two is given.
        sampling: "shuffled": an epoch is every example once. "balanced": it is as many draws with
            replacement, each of the client's classes (or combinations of labels) as often.
        precision: "float32", or "bfloat16": products and convolutions of the passes through the
            model take and give numbers of 8 bits of mantissa (torch's autocast). Weights, loss
            and updates stay float32.
        drop_last: an epoch ends before a batch that would be smaller than the others; which
            examples are left out is drawn anew in every epoch. Who has fewer than a batch trains
            on all of them (torch's DataLoader would give no batch).
    """

    batch_size: int | None
    epochs: float | None
    steps: int | None
    sampling: str = SHUFFLED
    precision: str = FLOAT32
    drop_last: bool = False

    def __post_init__(self) -> None:
        one_of((SHUFFLED, BALANCED), sampling=self.sampling)
        one_of((FLOAT32, BFLOAT16), precision=self.precision)
        if self.batch_size is not None:
            at_least(1, batch_size=self.batch_size)
        if (self.epochs is None) == (self.steps is None):
            raise InputError(
                "give either epochs or steps, and null for the other", "epochs", self.epochs
            )
        if self.epochs is not None:
            positive(epochs=self.epochs)
        if self.steps is not None:
            at_least(1, steps=self.steps)

    @classmethod
    def of(cls, trainer: object) -> Work:
        """That of a trainer which has all of these as parameters of its own."""
        return cls(**{field.name: getattr(trainer, field.name) for field in fields(cls)})

    def batches(self, n: int) -> int:
        """Steps in one epoch of a client with n examples."""
        size = self.largest_batch(n)
        return n // size if self.drop_last else math.ceil(n / size)

    def why_no_blocks(self) -> str:
        """Of passes that blocks of clients do not make; empty: of none."""
        return "" if self.precision == FLOAT32 else f"blocks train in float32, not {self.precision}"

    def largest_batch(self, n: int) -> int:
        """Examples in the largest batch of a client with n examples."""
        return min(self.batch_size or n, n)

    def last_batch(self, n: int) -> int:
        """Examples in the last batch of an epoch."""
        size = self.largest_batch(n)
        return size if self.drop_last else n % size or size

    def steps_for(self, n: int) -> int:
        """Steps in a round of a client with n examples.

        >>> Work(batch_size=10, epochs=2, steps=None).steps_for(25)
        6
        """
        return self.steps or max(1, round((self.epochs or 0) * self.batches(n)))

    def spread(self, n_clients: int, cohort_size: float) -> Work:
        """As many example passes as a cohort's, for one client that holds everybody's data.

        Raises:
            InputError: batches are whole shards and a cohort is not everybody: no number of whole
                batches is as much work.
        """
        if self.batch_size is None and cohort_size < n_clients:
            raise InputError(
                "setting=centralised cannot do the work of a part of the clients in batches of "
                "everything; give a batch_size, or cohort_size=n_clients",
                "batch_size",
                "null",
            )
        if self.steps is not None:
            return replace(self, steps=max(1, round(self.steps * cohort_size)))
        assert self.epochs is not None
        return replace(self, epochs=self.epochs * cohort_size / n_clients)


@final
@dataclass(frozen=True)
class Step:
    """What one batch says."""

    gradients: Gradients  # one a parameter, which the next step may overwrite; (): it is made
    loss: Tensor  # [] mean loss of the batch; 0 without examples, NaN where it is not to be seen
    examples: int  # in the batch; expected there, where it is not to be seen


class StepSource(Protocol):
    """Makes the steps of one client's round, on the model as it is when each one is asked for."""

    def __call__(
        self, model: Model, shard: Split, task: ClientTask, work: Work
    ) -> Generator[Step, None, None]:
        """`work.steps_for(len(shard))` steps; torch's global generator starts at the task's."""


@final
@dataclass(frozen=True)
class Adjusted:
    """The steps of another source, each with its gradients adjusted."""

    steps: StepSource
    adjust: Adjust

    def __call__(
        self, model: Model, shard: Split, task: ClientTask, work: Work
    ) -> Generator[Step, None, None]:
        """As many steps as the source makes."""
        with closing(self.steps(model, shard, task, work)) as made:
            for step in made:
                yield replace(step, gradients=tuple(self.adjust(step.gradients)))
                del step  # or the next gradients could not lie where these do


@runtime_checkable
class StepTrainer(Trainer, Protocol):
    """A trainer that goes step by step, and does not mind who makes the steps.

    Behind DP-SGD it is shown nothing of a client but the steps' gradients, and how many examples
    there are: `len(shard)`.
    """

    def work(self) -> Work:
        """How much a client trains in a round."""

    def learning_rate(self, round: int) -> float | None:
        """Of a round (from 0), if every step is -learning rate times its gradients; else None."""

    def __call__(
        self, model: Model, shard: Split, task: ClientTask, steps: StepSource = ...
    ) -> ClientReport:
        """Train `model` in place on `steps`; on ordinary ones if none are given."""


def refuse_other_work(trainer: Trainer) -> None:
    """Raise InputError if a trainer that goes step by step says its work in a way of its own."""
    if isinstance(trainer, StepTrainer):
        work: object = trainer.work()
        if not isinstance(work, Work):
            reason = f"work() must return a fedexp.training.steps.Work, and returned {work!r}"
            raise InputError(" ".join(reason.split()), "training", called(trainer))


@runtime_checkable
class PlainSteps(Trainer, Protocol):
    """Local training whose updates can be read as gradients, for who attacks them."""

    def step_rule(self, round: int) -> StepRule | None:
        """What a step of a round (from 0) makes of its gradients; None if that is not so simple."""

    def largest_batch(self, n: int) -> int:
        """Examples in the largest step of a client with n examples."""

    def steps_for(self, n: int) -> int:
        """Steps in a round of a client with n examples."""

    def in_batches(self, batch_size: int | None, steps: int) -> Trainer:
        """The same training in so many steps; None: each on all the client's examples."""


@runtime_checkable
class NoisySteps(Protocol):
    """Local training with noise in every step, on gradients that were clipped."""

    @property
    def trainer(self) -> Trainer:
        """What is done with the gradients."""

    @property
    def example_bound(self) -> float:
        """The largest norm of one example's gradient."""

    @property
    def noise_multiplier(self) -> float:
        """Standard deviation of the noise on a batch's sum, in units of that bound."""

    def with_noise(self, scale: float) -> Trainer:
        """The same with its noise multiplied."""


def ordinary_steps(
    model: Model, shard: Split, task: ClientTask, work: Work
) -> Generator[Step, None, None]:
    """Gradients of the mean loss of batches, drawn anew in every epoch."""
    goal, batches = batches_of(model, shard, task, work)
    half = work.precision == BFLOAT16
    for x, y in batches:
        # Anew in every step: autocast keeps the weights that it has rounded, and a step moves them.
        with torch.autocast(x.device.type, torch.bfloat16, enabled=half):
            logits = model.module(x)
        loss = goal.loss(logits.float() if half else logits, y)
        del x  # or the next examples could not lie where these do
        # Where the loss does not depend on a parameter, its gradient is 0.
        gradients = torch.autograd.grad(loss, model.parameters, materialize_grads=True)
        yield Step(gradients, loss.detach(), len(y))


def batches_of(
    model: Model, shard: Split, task: ClientTask, work: Work
) -> tuple[Task, Iterator[tuple[Tensor, Tensor]]]:
    """The client's own task, and the examples and labels of every step, as the model takes them."""
    return task_of_client(model.task, shard.y), _batches(model, shard, task, work)


def _batches(
    model: Model, shard: Split, task: ClientTask, work: Work
) -> Iterator[tuple[Tensor, Tensor]]:
    n, left = len(shard), work.steps_for(len(shard))
    batch_size, of_an_epoch = work.largest_batch(n), work.batches(n)
    at_once = batch_size * _batches_together(batch_size, shard.x[:1].numel())
    shuffle = torch_generator(task.seed)
    while left > 0:
        order = DRAWS[work.sampling](shard.y, shuffle).to(shard.x.device)
        # One gather for many batches, as a rule for an epoch, but of no example that no step is
        # left for; steps cut views, and the gather before is let go first.
        for rows in order[: min(left, of_an_epoch) * batch_size].split(at_once):
            block = shard.rows(rows)
            x, y = model.arrange(block).split(batch_size), block.y.split(batch_size)
            del block
            left -= len(x)
            yield from zip(x, y, strict=True)
            del x, y


def _shuffled(y: Tensor, rng: torch.Generator) -> Tensor:
    """Every example once `[n]`."""
    return torch.randperm(len(y), generator=rng)


def _balanced(y: Tensor, rng: torch.Generator) -> Tensor:
    """So many draws with replacement `[n]`, each class, or combination of labels, as probable."""
    _, kind, counts = torch.unique(y.cpu(), dim=0, return_inverse=True, return_counts=True)
    return torch.multinomial(1 / counts[kind].double(), len(y), replacement=True, generator=rng)


DRAWS = {SHUFFLED: _shuffled, BALANCED: _balanced}


def _batches_together(batch_size: int, numbers: int) -> int:
    """How many batches are gathered at once: about `MOST_GATHERED` examples, of large ones fewer.

    A multiple of 16 examples, or 64 bytes: then a batch lies as in one gather of everything, and
    kernels, which round differently at other addresses, give the same bits.

    >>> _batches_together(10, 784), _batches_together(32, 784), _batches_together(5000, 784)
    (408, 128, 2)
    >>> _batches_together(32, 3 * 224 * 224)
    3
    """
    step = 16 // math.gcd(16, batch_size)
    most = min(MOST_GATHERED, MOST_NUMBERS // numbers)
    return max(1, most // (step * batch_size)) * step


def train_steps(
    steps: StepSource,
    model: Model,
    shard: Split,
    task: ClientTask,
    work: Work,
    update: Callable[[Gradients], None],
) -> ClientReport:
    """Make every step of a client's round; `update` takes each one's gradients.

    Args:
        steps: makes the gradients.
        model: holds the client's start; trained in place.
        shard: the client's examples.
        task: its seed decides the batches, and what layers such as dropout draw.
        work: how many steps, of which size.
        update: moves the model along the gradients, one a parameter.

    Returns:
        The report, with the mean loss over the steps that had examples (NaN where none had).
    """
    processed, with_examples = 0, 0
    device = model.vector.device
    total_loss = torch.zeros((), device=device)
    model.module.train()
    with (
        seeded(task.seed, device),
        closing(steps(model, shard, task, work)) as made,
    ):
        for step in made:
            update(step.gradients)
            processed += step.examples
            with_examples += step.examples > 0
            total_loss += step.loss
            del step  # or the next gradients could not lie where these do
    # On a GPU a tensor until the round's end: to read it here would be to wait for the device.
    total = float(total_loss) if total_loss.is_cpu else total_loss
    loss = total / with_examples if with_examples else math.nan
    return ClientReport(len(shard), processed, {"loss": loss})
