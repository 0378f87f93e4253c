"""FedAvg's local training: minibatch SGD on the client's own examples.

    w <- w - lr * (grad of the batch's mean cross-entropy + weight_decay * w + proximal * (w - w0))

with heavy-ball momentum on the bracket, where w0 is the model that the client was sent.

Sources: McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized
Data", AISTATS 2017, algorithm 1; the proximal term is Li et al., "Federated Optimization in
Heterogeneous Networks" (FedProx), MLSys 2020, equation 2. The optimiser's state starts anew in
every round: a client keeps nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor
from torch.nn import functional as F

from fedexp.checks import InputError, at_least, in_range, non_negative, positive
from fedexp.protocols import Model
from fedexp.rng import seeded, torch_generator
from fedexp.types import ClientReport, ClientTask, Split


@final
@dataclass(frozen=True)
class LocalSGD:
    """Local SGD for a number of epochs, or of steps, over reshuffled batches.

    Args:
        lr: learning rate in the first round.
        batch_size: examples a step; None takes all the client's examples (the papers' B = inf).
            The last batch of an epoch may be smaller.
        epochs: passes over the client's examples a round; may be a fraction.
        steps: steps a round, instead of epochs; exactly one of the two is given.
        momentum: heavy-ball momentum, 0 for none.
        weight_decay: factor of the L2 term's gradient.
        proximal: FedProx's mu; 0 is FedAvg.
        schedule: factor on `lr` for a round (`fedexp.training.schedules`).
    """

    lr: float
    batch_size: int | None
    epochs: float | None
    steps: int | None
    momentum: float
    weight_decay: float
    proximal: float
    schedule: Callable[[int], float]

    def __post_init__(self) -> None:
        positive(lr=self.lr)
        non_negative(weight_decay=self.weight_decay, proximal=self.proximal)
        in_range(0, 1, momentum=self.momentum)
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

    def spread(self, n_clients: int, cohort_size: float) -> LocalSGD:
        """One client with everybody's data, and as many example passes as a cohort's."""
        if self.steps is not None:
            return replace(self, steps=max(1, round(self.steps * cohort_size)))
        assert self.epochs is not None
        return replace(self, epochs=self.epochs * cohort_size / n_clients)

    def __call__(self, model: Model, shard: Split, task: ClientTask) -> ClientReport:
        """Train `model` in place on `shard`; the report holds the mean loss over the steps."""
        n = len(shard)
        batch_size = min(self.batch_size or n, n)
        batches = math.ceil(n / batch_size)
        steps = self.steps or max(1, round((self.epochs or 0) * batches))

        shuffle = torch_generator(task.seed)
        update = self._update_rule(model, task)
        processed = 0
        total_loss = torch.zeros((), device=shard.x.device)
        model.module.train()
        with seeded(task.seed, shard.x.device):
            for step in range(steps):
                batch = step % batches
                if batch == 0:  # one gather an epoch; the steps then cut views
                    order = torch.randperm(n, generator=shuffle).to(shard.x.device)
                    x, y = model.arrange(shard.x[order]), shard.y[order]
                rows = slice(batch * batch_size, (batch + 1) * batch_size)
                processed += len(y[rows])
                loss = F.cross_entropy(model.module(x[rows]), y[rows])
                update(torch.autograd.grad(loss, model.parameters))
                total_loss += loss.detach()
        return ClientReport(n, processed, {"loss": float(total_loss) / steps})

    def _update_rule(self, model: Model, task: ClientTask) -> Callable[[tuple[Tensor, ...]], None]:
        """What one step does with its gradients; the terms that are 0 cost nothing."""
        lr = self.lr * self.schedule(task.round)
        weights = [p.data for p in model.parameters]
        start = [w.clone() for w in weights] if self.proximal else []
        velocity = [torch.zeros_like(w) for w in weights] if self.momentum else []

        def update(gradients: tuple[Tensor, ...]) -> None:
            direction = list(gradients)
            if self.weight_decay:
                direction = list(torch._foreach_add(direction, weights, alpha=self.weight_decay))
            if self.proximal:
                drift = torch._foreach_sub(weights, start)
                direction = list(torch._foreach_add(direction, drift, alpha=self.proximal))
            if self.momentum:
                torch._foreach_mul_(velocity, self.momentum)
                torch._foreach_add_(velocity, direction)
                direction = velocity
            torch._foreach_add_(weights, direction, alpha=-lr)

        return update
