"""Local training with any optimiser of torch's, for what plain SGD cannot do.

The optimiser's state starts anew in every round, as in FedAvg: a client keeps nothing. With
adaptive optimisers that matters; see Reddi et al., "Adaptive Federated Optimization", ICLR 2021,
who adapt on the server instead (`server_optimizer=`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fedexp.core.blocks import Block, unadjusted
from fedexp.core.checks import InputError, positive
from fedexp.core.examples import Split
from fedexp.core.protocols import LocalTraining, Model
from fedexp.core.rng import torch_generator
from fedexp.core.text import called
from fedexp.core.types import Adjust, ClientReport, ClientTask
from fedexp.training.blocks import (
    BlockSteps,
    numbers_of_steps,
    ordinary_block_steps,
    train_steps_of,
)
from fedexp.training.steps import (
    FLOAT32,
    SHUFFLED,
    Adjusted,
    Gradients,
    StepSource,
    Work,
    ordinary_steps,
    train_steps,
)


@final
@dataclass(frozen=True)
class LocalOptimizer:
    """Local training with `optimizer(parameters, lr=...)`.

    Args:
        optimizer: makes the optimiser of one client's round.
        lr: learning rate in the first round.
        batch_size: see `fedexp.training.steps.Work`, as for epochs and steps.
        epochs: passes over the client's examples a round.
        steps: steps a round, instead of epochs.
        schedule: factor on `lr` for a round (`fedexp.training.schedules`).
        sampling: how batches are drawn, see `Work`: "shuffled" or "balanced".
        precision: of passes through the model, see `Work`: "float32" or "bfloat16".
        drop_last: leave out the last batch of an epoch where it is smaller, see `Work`.
    """

    optimizer: Callable[..., Optimizer]
    lr: float
    batch_size: int | None
    epochs: float | None
    steps: int | None
    schedule: Callable[[int], float]
    sampling: str = SHUFFLED
    precision: str = FLOAT32
    drop_last: bool = False

    def __post_init__(self) -> None:
        positive(lr=self.lr)
        self.work()
        made = self.optimizer([nn.Parameter()], lr=self.lr)  # wrong options fail here, not later
        asked = inspect.signature(made.step).parameters.values()
        if any(p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD for p in asked):
            raise InputError(
                "makes no step of gradients alone: it asks for a closure, to call the model "
                "itself; use another, such as torch.optim.Adam",
                "optimizer._target_",
                called(made),
            )

    def work(self) -> Work:
        """How much a client trains in a round."""
        return Work.of(self)

    def spread(self, n_clients: int, cohort_size: float) -> LocalOptimizer:
        """One client with everybody's data, and as many example passes as a cohort's."""
        work = self.work().spread(n_clients, cohort_size)
        return replace(self, epochs=work.epochs, steps=work.steps)

    def __call__(
        self, model: Model, shard: Split, task: ClientTask, steps: StepSource = ordinary_steps
    ) -> ClientReport:
        """Train `model` in place on `shard`; the report holds the mean loss over the steps."""
        with self._updating(model.parameters, task.round) as update:
            return train_steps(steps, model, shard, task, self.work(), update)

    def why_no_blocks(self) -> str:
        """Of an optimiser that looks at more of a parameter than one number at a time."""
        if why_not := self.work().why_no_blocks():
            return why_not
        if goes_by_numbers(lambda tensors: self.optimizer(tensors, lr=self.lr)):
            return ""
        return "the optimiser does not treat every number of a model by itself"

    def numbers_in_a_block(self, n: int, d: int, kept: int) -> int:
        """See `TrainsBlocks`."""
        return numbers_of_steps(self.work(), n, d, kept)

    def train_block(
        self, block: Block, adjust: Adjust = unadjusted, steps: BlockSteps = ordinary_block_steps
    ) -> list[ClientReport]:
        """Train every client of `block` in place; see `TrainsBlocks`."""
        with self._updating(block.model.parameters, block.tasks[0].round) as update:
            return train_steps_of(steps, block, self.work(), update, adjust)

    @contextmanager
    def _updating(
        self, parameters: Sequence[Tensor], round: int
    ) -> Iterator[Callable[[Gradients], None]]:
        """What one step does with its gradients."""
        optimizer = self.optimizer(parameters, lr=self.lr * self.schedule(round))

        def update(gradients: Gradients) -> None:
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()

        yield update
        optimizer.zero_grad()  # the model lives on for the next client

    def learning_rate(self, round: int) -> float | None:
        """None: what an optimiser makes of gradients may be anything."""
        return None

    def step_rule(self, round: int) -> None:
        """None: as `learning_rate`."""

    def largest_batch(self, n: int) -> int:
        """Examples in the largest step of a client with n examples."""
        return self.work().largest_batch(n)

    def steps_for(self, n: int) -> int:
        """Steps in a round of a client with n examples."""
        return self.work().steps_for(n)

    def adjusted(self, adjust: Adjust) -> LocalTraining:
        """The same training, on gradients that went through `adjust`."""
        return partial(self, steps=Adjusted(ordinary_steps, adjust))


def goes_by_numbers(make: Callable[[list[Tensor]], Optimizer]) -> bool:
    """Whether an optimiser moves two stacked parameters as it moves each by itself: it is tried.

    >>> from torch.optim import LBFGS, Adam
    >>> goes_by_numbers(Adam), goes_by_numbers(LBFGS)
    (True, False)
    """
    draws = torch_generator(0)
    start = torch.randn(2, 4, 4, generator=draws)
    start[1] *= 100  # far apart, so that no common scale does for both
    gradients = torch.randn(3, 2, 4, 4, generator=draws) * torch.tensor([1.0, 100.0])[:, None, None]

    def after(rows: slice) -> Tensor:
        parameter = nn.Parameter(start[rows].squeeze(0).clone())
        optimizer = make([parameter])
        for gradient in gradients[:, rows]:
            parameter.grad = gradient.view(parameter.shape).clone()
            optimizer.step()
        return parameter.detach().view(-1, 4, 4)

    try:
        apart = torch.cat([after(slice(0, 1)), after(slice(1, 2))])
        return torch.allclose(after(slice(0, 2)), apart, rtol=1e-5)
    except Exception:  # such as a step that asks for a closure
        return False
