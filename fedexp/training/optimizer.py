"""Local training with any optimiser of torch's, for what plain SGD cannot do.

The optimiser's state starts anew in every round, as in FedAvg: a client keeps nothing. With
adaptive optimisers that matters; see Reddi et al., "Adaptive Federated Optimization", ICLR 2021,
who adapt on the server instead (`server_optimizer=`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import final

from torch import nn
from torch.optim import Optimizer

from fedexp.core.checks import positive
from fedexp.core.protocols import LocalTraining, Model
from fedexp.core.types import Adjust, ClientReport, ClientTask, Split
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
    """

    optimizer: Callable[..., Optimizer]
    lr: float
    batch_size: int | None
    epochs: float | None
    steps: int | None
    schedule: Callable[[int], float]
    sampling: str = SHUFFLED
    precision: str = FLOAT32

    def __post_init__(self) -> None:
        positive(lr=self.lr)
        self.work()
        self.optimizer([nn.Parameter()], lr=self.lr)  # wrong options fail here, not in a worker

    def work(self) -> Work:
        """How much a client trains in a round."""
        return Work(self.batch_size, self.epochs, self.steps, self.sampling, self.precision)

    def spread(self, n_clients: int, cohort_size: float) -> LocalOptimizer:
        """One client with everybody's data, and as many example passes as a cohort's."""
        work = self.work().spread(n_clients, cohort_size)
        return replace(self, epochs=work.epochs, steps=work.steps)

    def __call__(
        self, model: Model, shard: Split, task: ClientTask, steps: StepSource = ordinary_steps
    ) -> ClientReport:
        """Train `model` in place on `shard`; the report holds the mean loss over the steps."""
        lr = self.lr * self.schedule(task.round)
        optimizer = self.optimizer(model.parameters, lr=lr)

        def update(gradients: Gradients) -> None:
            for parameter, gradient in zip(model.parameters, gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()

        report = train_steps(steps, model, shard, task, self.work(), update)
        optimizer.zero_grad()  # the model lives on for the next client
        return report

    def learning_rate(self, round: int) -> float | None:
        """None: what an optimiser makes of gradients may be anything."""
        return None

    def step_rule(self, round: int) -> None:
        """None: as `learning_rate`."""

    def batches(self, n: int) -> int:
        """Steps in one pass over a client's n examples."""
        return self.work().batches(n)

    def steps_for(self, n: int) -> int:
        """Steps in a round of a client with n examples."""
        return self.work().steps_for(n)

    def adjusted(self, adjust: Adjust) -> LocalTraining:
        """The same training, on gradients that went through `adjust`."""
        return partial(self, steps=Adjusted(ordinary_steps, adjust))
