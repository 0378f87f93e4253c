"""The steps of local training, whatever one step does with its gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor
from torch.nn import functional as F

from fedexp.checks import InputError, at_least, positive
from fedexp.protocols import Model
from fedexp.rng import seeded, torch_generator
from fedexp.types import ClientReport, ClientTask, Split

Gradients = tuple[Tensor, ...]


@final
@dataclass(frozen=True)
class Work:
    """How much a client trains in a round.

    Args:
        batch_size: examples a step; None takes all the client's examples (the papers' B = inf).
            The last batch of an epoch may be smaller.
        epochs: passes over the client's examples; may be a fraction, of which at least one step is
            made.
        steps: steps, instead of epochs; exactly one of the two is given.
    """

    batch_size: int | None
    epochs: float | None
    steps: int | None

    def __post_init__(self) -> None:
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

    def batches(self, n: int) -> int:
        """Steps in one epoch of a client with n examples."""
        return math.ceil(n / min(self.batch_size or n, n))

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


def train_steps(
    model: Model, shard: Split, task: ClientTask, work: Work, update: Callable[[Gradients], None]
) -> ClientReport:
    """Go through reshuffled batches; `update` takes each batch's gradients and moves the model.

    Args:
        model: holds the client's start; trained in place.
        shard: the client's examples.
        task: its seed decides the batches, and what layers such as dropout draw.
        work: how many steps, of which size.
        update: takes the gradients of the batch's mean cross-entropy, one a parameter.

    Returns:
        The report, with the mean loss over the steps.
    """
    n, device = len(shard), shard.x.device
    batch_size, batches, steps = min(work.batch_size or n, n), work.batches(n), work.steps_for(n)
    shuffle = torch_generator(task.seed)
    processed, total_loss = 0, torch.zeros((), device=device)
    model.module.train()
    with seeded(task.seed, device):
        for step in range(steps):
            batch = step % batches
            if batch == 0:  # one gather an epoch; the steps then cut views
                order = torch.randperm(n, generator=shuffle).to(device)
                x, y = model.arrange(shard.x[order]), shard.y[order]
            rows = slice(batch * batch_size, (batch + 1) * batch_size)
            processed += len(y[rows])
            loss = F.cross_entropy(model.module(x[rows]), y[rows])
            update(torch.autograd.grad(loss, model.parameters))
            total_loss += loss.detach()
    return ClientReport(n, processed, {"loss": float(total_loss) / steps})
