"""The steps that DP-SGD's epsilon is for: made once, with the announced work, and counted.

All that has noise is the gradients. So a trainer is shown nothing else of a client: not the
examples, not a batch's loss, not how many examples are in it (a step that is skipped for an empty
batch tells that it was empty), and not the module and the task that the examples go through: its
own have the same tensors, and hooks on them see no example. What the record has of these is put
into the report afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from fedexp.core.blocks import Block
from fedexp.core.checks import InputError
from fedexp.core.devices import on_device
from fedexp.core.examples import Split
from fedexp.core.protocols import Model
from fedexp.core.text import called
from fedexp.core.types import ClientReport, ClientTask
from fedexp.training.blocks import BlockStep, BlockSteps
from fedexp.training.steps import Step, StepSource, StepTrainer, Work


@final
class CountedSteps:
    """A source of steps that counts them, and makes them once: a second time has the same noise.

    Args:
        steps: the source, of one client or of a block.
        trainer: that asks for them; the account goes by its work.
    """

    def __init__(
        self, steps: Callable[..., Generator[Any, None, None]], trainer: StepTrainer
    ) -> None:
        self._steps, self._work, self._by = steps, trainer.work(), called(trainer)
        self._begun, self.made = False, 0

    def __call__(self, *given: Any, **named: Any) -> Generator[Any, None, None]:
        """The source's steps, for what it is given; the work comes last.

        Raises:
            InputError: they were made before, or are asked for with other work.
        """
        if self._begun:
            raise self._refusal("asks for its steps twice: the second time has the first's noise")
        if named.get("work", given[-1:]) not in (self._work, (self._work,)):
            raise self._refusal("asks for other steps than its work() says, which epsilon counts")
        self._begun = True
        with closing(self._steps(*given, **named)) as made:
            for step in made:
                self.made += 1
                yield step
                del step  # or the next gradients could not lie where these do

    def _refusal(self, reason: str) -> InputError:
        return InputError(f"{reason}; DP-SGD cannot train so", "training", self._by)


@final
class UnseenSteps:
    """The steps of one client on its own examples, with nothing of them in sight but gradients.

    Args:
        steps: the source.
        model: the client's, whatever is handed in its place.
        shard: the client's examples, whatever is handed in their place.
    """

    def __init__(self, steps: StepSource, model: Model, shard: Split) -> None:
        self._steps, self._model, self._shard = steps, model, shard
        self._processed, self._with_examples = 0, 0
        self._loss: Tensor | float = 0.0

    def __call__(
        self, model: Model, shard: object, task: ClientTask, work: Work
    ) -> Generator[Step, None, None]:
        """As many steps as the source makes."""
        n, modules = len(self._shard), (self._model.module, model.module)
        modes = [*zip(*(module.modules() for module in modules), strict=False)]
        total = torch.zeros((), device=model.vector.device)
        unknown, expected = torch.full_like(total, torch.nan), round(n / work.batches(n))
        _follow(modes)
        with closing(self._steps(self._model, self._shard, task, work)) as made:
            for step in made:
                self._processed += step.examples
                self._with_examples += step.examples > 0
                total += step.loss
                yield replace(step, loss=unknown, examples=expected)
                del step  # or the next gradients could not lie where these do
                _follow(modes)
        # On a GPU a tensor until the round's end: to read it here would be to wait for the device.
        self._loss = float(total) if total.is_cpu else total

    def told(self, report: ClientReport) -> ClientReport:
        """The report with what the trainer could not see."""
        loss = self._loss / self._with_examples if self._with_examples else math.nan
        return replace(report, processed=self._processed, metrics=_with_loss(report.metrics, loss))


@final
class UnseenBlockSteps:
    """The same for the steps of a block of clients: `shown` is what a trainer has of it.

    Args:
        steps: the source.
        block: the clients, whatever is handed in their place.
        by: the trainer.
    """

    def __init__(self, steps: BlockSteps, block: Block, by: str) -> None:
        self._steps, self._block = steps, block
        self._processed = np.zeros(len(block), dtype=np.int64)
        self._with_examples = np.zeros(len(block), dtype=np.int64)
        self._losses = torch.zeros(len(block), device=block.model.device)
        of_clients: Any = tuple(Unseen(n, by) for n in block.sizes)
        data: Any = Unseen(len(block.data), by)
        model = block.model.apart()
        self.shown = replace(block, model=model, data=data, shards=of_clients, labels=of_clients)

    def __call__(self, block: object, work: Work) -> Generator[BlockStep, None, None]:
        """As many steps as the source makes."""
        expected = tuple(round(n / work.batches(n)) for n in self._block.sizes)
        self._block.model.training()
        with closing(self._steps(self._block, work)) as made:
            for step in made:
                a, examples = len(step.examples), np.array(step.examples)
                self._processed[:a] += examples
                self._with_examples[:a] += examples > 0
                self._losses[:a] += step.losses
                unknown = torch.full_like(step.losses, torch.nan)
                yield replace(step, losses=unknown, examples=expected[:a])
                del step  # or the next gradients could not lie where these do

    def told(self, reports: Sequence[ClientReport]) -> list[ClientReport]:
        """The reports with what the trainer could not see."""
        counts = on_device(self._with_examples.astype(np.float32), self._losses.device)
        return [
            replace(
                report,
                processed=int(processed),
                metrics=_with_loss(report.metrics, loss),
            )
            for report, processed, loss in zip(
                reports, self._processed, self._losses / counts, strict=True
            )
        ]


def _with_loss(metrics: Mapping[str, Any], loss: Tensor | float) -> dict[str, Any]:
    """The metrics, with the loss where they hold one."""
    return {**metrics, "loss": loss} if "loss" in metrics else dict(metrics)


def _follow(modes: Sequence[tuple[nn.Module, nn.Module]]) -> None:
    """Put every first layer into the mode that the trainer has its second one in."""
    for layer, shown in modes:
        if layer.training != shown.training:
            layer.training = shown.training


@final
@dataclass(frozen=True)
class Unseen:
    """A client's examples as a trainer behind DP-SGD has them: it may know how many there are."""

    n: int
    by: str  # the trainer

    def __len__(self) -> int:
        return self.n

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise InputError(
            f"looks at a client's examples (shard.{name}) beside the steps that it is given, and "
            "only those have noise; DP-SGD cannot train so",
            "training",
            self.by,
        )
