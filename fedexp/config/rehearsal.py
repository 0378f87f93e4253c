"""One training step before the run, so that what fails in training only fails before it.

In evaluation a model may answer as it should, and in training give a tuple (auxiliary heads), lose
the axis of a batch of one (`squeeze`), or refuse such a batch (batch normalisation). So a step is
made for the sizes of batches that will occur, on a copy of the model and on real examples. Nothing
that is drawn or moved here reaches the run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import itemgetter

import numpy as np
import torch
from torch import Tensor, nn

from fedexp.core.capabilities import ChecksBatches
from fedexp.core.checks import InputError
from fedexp.core.examples import Split
from fedexp.core.flat import TaskModel
from fedexp.core.own_code import own_code_named
from fedexp.core.protocols import Trainer
from fedexp.core.rng import seed_for, seeded
from fedexp.core.shards import sizes_of
from fedexp.core.text import called
from fedexp.core.trained import held_to_its_model
from fedexp.core.types import ClientTask
from fedexp.core.workload import EVALUATION_BATCH, Workload
from fedexp.training.steps import StepTrainer, Work

LARGEST = 128  # examples of a step; a larger batch fails as this one does
AT_MOST = 128  # examples in all; sizes are tried from the smallest on
A_FEW = 2  # examples of the one client of a trainer that is not known to go step by step


def rehearse(
    workload: Workload, num_classes: int, trainer: Trainer, protected: Trainer, seed: int
) -> list[str]:
    """Train a copy of the model for a step or a few; sentences on what a person should know.

    Args:
        workload: the model, and what it is trained and evaluated on.
        num_classes: how many numbers a model answers with.
        trainer: the local training.
        protected: the same under the run's mechanism, which may make its steps itself.
        seed: of the run.

    Raises:
        InputError: the model cannot be trained, or not in batches of a size that will occur.
    """
    copy = TaskModel(workload.model, workload.device, workload.task, workload.normalisation)
    stage = _Stage(copy, type(workload.model).__name__, num_classes)
    start = copy.vector.clone()
    work = trainer.work() if isinstance(trainer, StepTrainer) else None
    little = [] if work is None else _of_little_work(work, workload.shards)
    with seeded(seed_for(seed, "rehearsal"), workload.device):
        for name, part in workload.evaluation.items():
            if len(part) % EVALUATION_BATCH == 1:  # the last batch of it
                stage.answer(part.between(0, 1).to(workload.device), f"the {name} part ends in it")
        if protected is not trainer or work is None:
            task = ClientTask(0, start, 0, seed_for(seed, "rehearsal", 0))
            # A mechanism that makes the steps may draw a batch of any size.
            for n in (A_FEW,) if protected is trainer else (A_FEW, 1):
                # As a copy, which is what clients have: what a trainer writes to it is its own.
                few = workload.train.rows(torch.arange(n)).to(workload.device)
                stage.train(protected, few, task)
                copy.load(start)
            if isinstance(protected, ChecksBatches):
                protected.check_batches(copy, workload.train, sizes_of(workload.shards).tolist())
            return little
        idle: list[set[str]] = []
        for size, why in _batch_sizes(work, workload.shards).items():
            idle.append(stage.step(workload.train.between(0, size).to(workload.device), why))
            copy.load(start)
    return [*_of_unused(set.intersection(*idle)), *little]


@dataclass(frozen=True)
class _Stage:
    """A copy of the model, to be spoilt."""

    model: TaskModel
    name: str
    num_classes: int

    def step(self, batch: Split, why: str) -> set[str]:
        """A step's gradients; the names of the parameters that the answer does not depend on."""
        self.model.module.train()
        trained = [name for name, p in self.model.module.named_parameters() if p.requires_grad]
        if len(trained) != len(self.model.parameters):
            raise InputError(
                "changes which of its parameters are trained (requires_grad) when it runs; say it "
                "when the model is made, or by model.frozen",
                "model",
                self.name,
            )
        answer = self.answer(batch, why)
        loss = self.loss(answer, batch)
        with self._refusing(f"cannot be trained on {_examples(batch)}, and {why}"):
            gradients = torch.autograd.grad(loss, self.model.parameters, allow_unused=True)
        return {name for name, g in zip(trained, gradients, strict=True) if g is None}

    def loss(self, answer: Tensor, batch: Split) -> Tensor:
        """The batch's `[]`; raises InputError for whatever else the task makes of the answer."""
        task = self.model.task
        with self._refusing(f"cannot be trained on {_examples(batch)}"), own_code_named():
            loss: object = task.loss(answer, batch.y)
        if not isinstance(loss, Tensor) or loss.shape != ():
            given = list(loss.shape) if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
            raise InputError(
                f"must give a batch's mean loss as one number [], and gave {given} (loss)",
                "task",
                called(task),
            )
        if answer.requires_grad and not loss.requires_grad:
            raise InputError(
                "gives a loss that has no gradient (is it detached, or made by NumPy?), so that "
                "nothing could be learnt from it (loss)",
                "task",
                called(task),
            )
        return loss

    def answer(self, batch: Split, why: str) -> Tensor:
        """Logits `[n, num_classes]`; whatever else is refused."""
        when = "in training" if self.model.module.training else "in evaluation"
        with self._refusing(f"fails {when} on {_examples(batch)}, and {why}"):
            answer = self.model.module(self.model.arrange(batch))
        expected = (len(batch), self.num_classes)
        given = tuple(answer.shape) if isinstance(answer, Tensor) else f"a {type(answer).__name__}"
        if not isinstance(answer, Tensor) or given != expected:
            reason = f"gives {given} {when} for {_examples(batch)}, not {expected}; {why}"
            raise InputError(reason, "model", self.name)
        return answer

    def train(self, trainer: Trainer, shard: Split, task: ClientTask) -> None:
        """A round of one client."""
        before = _form(self.model.module)
        with (
            self._refusing(f"cannot be trained on {_examples(shard)}"),
            own_code_named(),
            held_to_its_model(trainer, self.model, shard, task),
        ):
            trainer(self.model, shard, task)
        if _form(self.model.module) != before:
            raise InputError(
                "changes more of the model than its numbers (its layers, their settings or their "
                "hooks), which is evaluated and trained by other clients as well: put it back",
                "training",
                called(trainer),
            )

    @contextmanager
    def _refusing(self, reason: str) -> Iterator[None]:
        try:
            yield
        except InputError:
            raise
        except Exception as error:
            first = (str(error) or type(error).__name__).splitlines()[0]
            raise InputError(f"{reason}: {first}", "model", self.name) from error


def _form(module: nn.Module) -> list[object]:
    """All of a model but its numbers, and whether it is in training."""
    return [
        (name, id(layer), layer.extra_repr(), [*layer._forward_hooks, *layer._forward_pre_hooks])
        for name, layer in module.named_modules()
    ]


def _batch_sizes(work: Work, shards: Sequence[np.ndarray]) -> Mapping[int, str]:
    """The sizes of batches that occur, the smallest first, each with a client that has it.

    The largest, and of the others as many as `AT_MOST` examples make.
    """
    found: dict[int, str] = {}
    sizes, first = np.unique(sizes_of(shards), return_index=True)
    for n, client in sorted(zip(sizes.tolist(), first.tolist(), strict=True), key=itemgetter(1)):
        batch = work.largest_batch(n)
        for size in (batch, work.last_batch(n)):
            have = f"client {client} has {n} example{'s' if n > 1 else ''}"
            found.setdefault(size, have if size == n else f"{have}, in batches of {batch}")
    spent, chosen = 0, {}
    for size in sorted(found):
        spent += size
        if size == max(found) or spent <= AT_MOST:
            chosen[min(size, LARGEST)] = found[size]
    return chosen


def _examples(part: Split) -> str:
    return f"a batch of {len(part)}"


def _of_little_work(work: Work, shards: Sequence[np.ndarray]) -> list[str]:
    """At least one step is made, however small a fraction of an epoch was asked for."""
    most = max(work.batches(n) for n in np.unique(sizes_of(shards)).tolist())
    if work.epochs is None or work.epochs * most >= 0.5:
        return []
    return [
        f"training.epochs={work.epochs:g} is less than half a batch of any client: everybody makes "
        "one step a round"
    ]


def _of_unused(unused: set[str]) -> list[str]:
    if not unused:
        return []
    return [
        f"the model's answer does not depend on {', '.join(sorted(unused))}: that is sent and "
        "counted, and does not learn"
    ]
