"""What every worker has on its desk: one model to train in, all the data, nobody's state.

Both backends do their work through this class, so they run the same kernels on the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

import numpy as np
import torch
from torch import Tensor

from fedexp.core.checks import InputError
from fedexp.core.examples import Split
from fedexp.core.flat import TaskModel
from fedexp.core.mapping import let_go
from fedexp.core.protocols import Sends, Trainer
from fedexp.core.reports import check_report
from fedexp.core.rng import seeded, start_globals
from fedexp.core.trained import held_to_its_model
from fedexp.core.types import ClientReport, ClientTask, Sent, State
from fedexp.core.workload import Workload, evaluation_batch

Layout = Mapping[str, tuple[tuple[int, ...], torch.dtype]]


@final
class Workspace:
    """One model, the data and the shards of a workload, on its device.

    `examples` are the training part.
    """

    def __init__(self, workload: Workload) -> None:
        device = workload.device
        self.model = TaskModel(workload.model, device, workload.task, workload.normalisation)
        self.examples = workload.train.to(device)
        self._shards = workload.shards
        self._evaluation: Mapping[str, Split] = {
            name: split.to(device) for name, split in workload.evaluation.items()
        }
        self._device = device

    def train(self, trainer: Trainer, task: ClientTask, row: Tensor) -> ClientReport:
        """One client's local training; writes local - global and what else it sends to `row` `[D]`.

        Raises:
            InputError: the trainer reports no numbers, sends other tensors than it declares, or
                keeps others than the client had.
        """
        self.model.load(task.params)
        shard = self._shard(self._shards[task.examples_of])
        with seeded(task.seed, self._device):
            start_globals(task.seed)
            with held_to_its_model(trainer, self.model, shard, task):
                report = trainer(self.model, shard, task)
        check_report(report, trainer)
        let_go(self.examples.x)
        d = len(task.params)
        torch.sub(self.model.vector, task.params, out=row[:d])
        if report.sent or len(row) > d:
            write_sent(report.sent, sends_of(trainer), d, row)
        if report.state or task.state:
            check_state(report.state, task.state)
        return report

    def evaluate(self, vector: Tensor, split: str, start: int, stop: int) -> Tensor:
        """Logits `[stop - start, num_classes]` of rows start..stop-1 of a part, on the CPU."""
        self.model.load(vector)
        self.model.module.eval()
        part = self._evaluation[split]
        logits = torch.empty(0)
        with torch.inference_mode():
            batch = evaluation_batch(self._device, part.x[:1].numel())
            for first in range(start, stop, batch):
                last = min(first + batch, stop)
                block = part.between(first, last)
                answers = self.model.module(self.model.arrange(block))
                if first == start:  # in one piece: pieces kept would pin the memory between them
                    logits = answers.new_empty(stop - start, *answers.shape[1:])
                logits[first - start : last - start] = answers
                let_go(block.x)
        return logits.cpu()

    def _shard(self, rows: np.ndarray) -> Split:
        """A client's examples: a view where they lie side by side (who holds all), else a copy."""
        first, last = int(rows[0]), int(rows[-1])
        if last - first + 1 == len(rows):  # they are sorted, and none comes twice
            return self.examples.between(first, last + 1)
        return self.examples.rows(torch.from_numpy(rows).to(self._device))


def sends_of(trainer: Trainer) -> tuple[Sent, ...]:
    """What a trainer declares that it sends beside the delta."""
    return trainer.sends if isinstance(trainer, Sends) else ()


def layout_of(state: State) -> Layout:
    """Shape and type of named tensors."""
    return {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in state.items()}


def check_state(after: State, before: State) -> None:
    """Raise InputError for other tensors than the client had."""
    if layout_of(after) != layout_of(before):
        names = f"{sorted(after) or 'nothing'}, which had {sorted(before) or 'nothing'}"
        raise InputError(
            f"the training leaves its client with {names}, or with other shapes of them",
            "state",
            ", ".join(after),
        )


def write_sent(tensors: State, declared: Sequence[Sent], d: int, row: Tensor) -> None:
    """Write `tensors` behind the delta `[d]` in `row` `[D]`, in the declared order."""
    names = [sent.name for sent in declared]
    if sorted(tensors) != sorted(names):
        raise InputError(
            f"the training sends {sorted(tensors) or 'nothing'} beside the delta, and declares "
            f"{sorted(names) or 'nothing'}",
            "sends",
            ", ".join(names),
        )
    start = d
    for sent in declared:
        end = start + sent.size(d)
        row[start:end] = tensors[sent.name].reshape(-1)
        start = end
