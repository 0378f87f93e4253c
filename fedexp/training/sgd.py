"""FedAvg's local training: minibatch SGD on the client's own examples.

    w <- w - lr * (grad of the batch's mean cross-entropy + weight_decay * w + proximal * (w - w0))

with heavy-ball momentum on the bracket, where w0 is the model that the client was sent.

Sources: McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized
Data", AISTATS 2017, algorithm 1; the proximal term is Li et al., "Federated Optimization in
Heterogeneous Networks" (FedProx), MLSys 2020, equation 2. The optimiser's state starts anew in
every round: a client keeps nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import final

import torch
from torch import Tensor

from fedexp.core.blocks import Block, unadjusted
from fedexp.core.checks import in_range, non_negative, positive
from fedexp.core.examples import Split
from fedexp.core.protocols import LocalTraining, Model
from fedexp.core.step_rule import StepRule
from fedexp.core.types import Adjust, ClientReport, ClientTask
from fedexp.training.blocks import (
    BlockSteps,
    numbers_of_steps,
    ordinary_block_steps,
    train_steps_of,
)
from fedexp.training.by_hand import DescentByHand, can_be_trained
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
class LocalSGD:
    """Local SGD for a number of epochs, or of steps.

    Args:
        lr: learning rate in the first round.
        batch_size: see `fedexp.training.steps.Work`, as for epochs and steps.
        epochs: passes over the client's examples a round.
        steps: steps a round, instead of epochs.
        momentum: heavy-ball momentum, 0 for none.
        weight_decay: factor of the L2 term's gradient.
        proximal: FedProx's mu; 0 is FedAvg.
        schedule: factor on `lr` for a round (`fedexp.training.schedules`).
        sampling: how batches are drawn, see `Work`: "shuffled" or "balanced".
        precision: of passes through the model, see `Work`: "float32" or "bfloat16".
        drop_last: leave out the last batch of an epoch where it is smaller, see `Work`.
    """

    lr: float
    batch_size: int | None
    epochs: float | None
    steps: int | None
    momentum: float
    weight_decay: float
    proximal: float
    schedule: Callable[[int], float]
    sampling: str = SHUFFLED
    precision: str = FLOAT32
    drop_last: bool = False

    def __post_init__(self) -> None:
        positive(lr=self.lr)
        non_negative(weight_decay=self.weight_decay, proximal=self.proximal)
        in_range(0, 1, momentum=self.momentum)
        self.work()

    def work(self) -> Work:
        """How much a client trains in a round."""
        return Work.of(self)

    def spread(self, n_clients: int, cohort_size: float) -> LocalSGD:
        """One client with everybody's data, and as many example passes as a cohort's."""
        work = self.work().spread(n_clients, cohort_size)
        return replace(self, epochs=work.epochs, steps=work.steps)

    def __call__(
        self, model: Model, shard: Split, task: ClientTask, steps: StepSource = ordinary_steps
    ) -> ClientReport:
        """Train `model` in place on `shard`; the report holds the mean loss over the steps."""
        ordinary = steps is ordinary_steps and self.precision == FLOAT32
        if ordinary and can_be_trained(model, shard.x[:1]):
            by_hand = DescentByHand(self._rule(task.round))
            return train_steps(by_hand, model, shard, task, self.work(), _made_already)
        update = self._update_rule(model.parameters, task.round)
        return train_steps(steps, model, shard, task, self.work(), update)

    def why_no_blocks(self) -> str:
        """Of passes in bfloat16; else nothing: what a step does it does number by number."""
        return self.work().why_no_blocks()

    def numbers_in_a_block(self, n: int, d: int, kept: int) -> int:
        """See `TrainsBlocks`."""
        return numbers_of_steps(self.work(), n, d, kept)

    def train_block(
        self, block: Block, adjust: Adjust = unadjusted, steps: BlockSteps = ordinary_block_steps
    ) -> list[ClientReport]:
        """Train every client of `block` in place; see `TrainsBlocks`."""
        update = self._update_rule(block.model.parameters, block.tasks[0].round)
        return train_steps_of(steps, block, self.work(), update, adjust)

    def learning_rate(self, round: int) -> float | None:
        """Of a round (from 0); None where momentum makes more of a step than its gradients.

        Weight decay and the proximal term count as a part of the gradients.
        """
        return None if self.momentum else self.lr * self.schedule(round)

    def step_rule(self, round: int) -> StepRule | None:
        """Of a round (from 0); None where a batch of all examples is a draw of some of them."""
        return self._rule(round) if self.sampling == SHUFFLED else None

    def largest_batch(self, n: int) -> int:
        """Examples in the largest step of a client with n examples."""
        return self.work().largest_batch(n)

    def steps_for(self, n: int) -> int:
        """Steps in a round of a client with n examples."""
        return self.work().steps_for(n)

    def in_batches(self, batch_size: int | None, steps: int) -> LocalSGD:
        """The same training in so many steps; None: each on all the client's examples."""
        return replace(self, batch_size=batch_size, epochs=None, steps=steps, drop_last=False)

    def adjusted(self, adjust: Adjust) -> LocalTraining:
        """The same training, on gradients that went through `adjust`."""
        return partial(self, steps=Adjusted(ordinary_steps, adjust))

    def _rule(self, round: int) -> StepRule:
        lr = self.lr * self.schedule(round)
        return StepRule(lr, self.momentum, self.weight_decay, self.proximal)

    def _update_rule(self, parameters: Sequence[Tensor], round: int) -> Callable[[Gradients], None]:
        """What one step does with its gradients; the terms that are 0 cost nothing."""
        lr = self.lr * self.schedule(round)
        weights = [p.data for p in parameters]
        start = [w.clone() for w in weights] if self.proximal else []
        velocity = [torch.zeros_like(w) for w in weights] if self.momentum else []

        def update(gradients: Gradients) -> None:
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


def _made_already(gradients: Gradients) -> None:
    """What is left to do where a step was made by hand."""
