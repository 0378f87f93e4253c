"""SCAFFOLD: control variates take the drift of skewed clients out of every local step.

    client k, K steps:  y <- y - lr (g(y) + c - c_k),    from y = x
                        c_k+ = c_k - c + (x - y) / (K lr)
    it sends            delta y = y - x and delta c = c_k+ - c_k, and keeps c_k+
    server:             x <- x + lr_g mean(delta y),    c <- c + (|S| / N) mean(delta c)

with x the server's model, c its control variate, c_k the one that client k keeps (0 before its
first round), S the clients of the round and N all of them. The two means are what the rule of the
run makes of the rows (delta y, delta c), each one vector, and lr_g is the server optimiser's; the
paper's means are uniform (`aggregator=mean aggregator.weighting=uniform`). |S| counts the clients
whose rows were used. A client needs no other gradients for c_k+ than those of its steps, and sends
and receives twice what it does in FedAvg.

What is behind a sent `control`: delta c = -c - delta y / (K lr), a function of the delta and of
what the server sent, so that it tells nothing that the delta does not (DP-SGD: post-processing).
It is not declared fit to be clipped together with the delta: the server's c is the mean of the
clients' c_k only as long as what is added to it is what they keep.

K lr = 0 (a schedule that has ended) leaves c_k as it is. Running statistics are not corrected.

Source: Karimireddy, Kale, Mohri, Reddi, Stich and Suresh, "SCAFFOLD: Stochastic Controlled
Averaging for Federated Learning", ICML 2020, algorithm 1, option II.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch
from torch import Tensor

from fedexp.core.blocks import Block, TrainsBlocks, unadjusted, why_no_blocks
from fedexp.core.checks import InputError
from fedexp.core.examples import Split
from fedexp.core.protocols import Adjustable, Model, Trainer
from fedexp.core.types import Adjust, ClientReport, ClientTask, Sent, State


@final
@dataclass(frozen=True)
class Scaffold:
    """Control variates with client and server; rows are (delta y, delta c), `[n, 2 d]`."""

    sends: ClassVar[tuple[Sent, ...]] = (Sent("control", derived_from_the_delta=True),)
    trains_once: ClassVar[bool] = True

    def init(self, d: int) -> State:
        """The server's control variate is 0."""
        return {"control": torch.zeros(d)}

    def client_init(self, d: int) -> State:
        """A client's control variate is 0."""
        return {"control": torch.zeros(d)}

    def broadcast(self, state: State) -> State:
        """The control variate goes to the clients along with the model."""
        return state

    def local(self, trainer: Trainer) -> Trainer:
        """Training with corrected steps.

        Raises:
            InputError: its steps are not plain SGD's, so that no gradients can be read off them.
        """
        if not isinstance(trainer, Adjustable) or trainer.learning_rate(0) is None:
            raise InputError(
                "algorithm=scaffold reads gradients off an update, which takes steps of plain SGD; "
                "use training=sgd with training.momentum=0",
                "training",
                type(trainer).__name__,
            )
        return _ScaffoldClient(trainer)

    def server_step(self, step: Tensor, state: State, share: float) -> tuple[Tensor, State]:
        """The step of the model `[d]`, and the next c."""
        control = state["control"]
        d = len(control)
        return step[:d], {"control": control + share * step[d:].to(control.device)}


@final
@dataclass(frozen=True)
class _ScaffoldClient:
    trainer: Trainer
    sends: ClassVar[tuple[Sent, ...]] = Scaffold.sends

    def spread(self, n_clients: int, cohort_size: float) -> _ScaffoldClient:
        return replace(self, trainer=self.trainer.spread(n_clients, cohort_size))

    def __call__(self, model: Model, shard: Split, task: ClientTask) -> ClientReport:
        assert isinstance(self.trainer, Adjustable)
        c, c_k = (s["control"].to(model.vector.device) for s in (task.broadcast, task.state))
        correction = _by_parameter(c - c_k, model)

        def corrected(gradients: Sequence[Tensor]) -> Sequence[Tensor]:
            return torch._foreach_add(list(gradients), correction)

        report = self.trainer.adjusted(corrected)(model, shard, task)
        scale = self._way(len(shard), task.round)
        change = torch.zeros_like(c)
        if scale:
            p = sum(parameter.numel() for parameter in model.parameters)  # then come buffers
            change[:p] = (task.params.to(c.device)[:p] - model.vector[:p]) / scale - c[:p]
        return replace(report, sent={"control": change}, state={"control": c_k + change})

    def why_no_blocks(self) -> str:
        return why_no_blocks(self.trainer)

    def numbers_in_a_block(self, n: int, d: int, kept: int) -> int:
        assert isinstance(self.trainer, TrainsBlocks)
        return self.trainer.numbers_in_a_block(n, d, kept) + 4 * d

    def train_block(self, block: Block, adjust: Adjust = unadjusted) -> list[ClientReport]:
        """As a call for each client; here all numbers of a model are parameters."""
        assert isinstance(self.trainer, TrainsBlocks)
        model, tasks = block.model, block.tasks
        c = tasks[0].broadcast["control"].to(model.device)
        c_k = torch.stack([task.state["control"] for task in tasks]).to(model.device)
        correction = model.by_parameter(c - c_k)

        def corrected(gradients: Sequence[Tensor]) -> Sequence[Tensor]:
            return adjust(torch._foreach_add(list(gradients), correction))

        reports = self.trainer.train_block(block, corrected)
        ways = torch.tensor([self._way(n, tasks[0].round) for n in block.sizes])[:, None]
        ways = ways.to(model.device)
        change = torch.empty_like(c_k)
        model.write(block.starts, change)
        change = torch.where(ways > 0, -change / ways - c, 0.0)
        return [
            replace(report, sent={"control": own}, state={"control": kept})
            for report, own, kept in zip(reports, change, c_k + change, strict=True)
        ]

    def _way(self, n: int, round: int) -> float:
        """K lr of a client with n examples."""
        assert isinstance(self.trainer, Adjustable)
        return self.trainer.steps_for(n) * (self.trainer.learning_rate(round) or 0.0)


def _by_parameter(vector: Tensor, model: Model) -> list[Tensor]:
    """The first numbers of a vector `[d]` in the shapes of the model's parameters."""
    sizes = [parameter.numel() for parameter in model.parameters]
    pieces = vector[: sum(sizes)].split(sizes)
    return [
        piece.view(parameter.shape)
        for piece, parameter in zip(pieces, model.parameters, strict=True)
    ]
