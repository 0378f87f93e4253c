"""Clients one after the other, in this process. The simple path."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import final

import torch
from torch import Tensor

from fedexp.backends.workspace import Workspace, sends_of
from fedexp.core.protocols import Merges, Trainer
from fedexp.core.types import ClientReport, ClientTask, Updates, row_size
from fedexp.core.workload import Workload


def _always(done: int) -> bool:
    """To the last client."""
    return True


@final
class InProcess:
    """Runs every task here, on the workload's device, writing into one reused update matrix."""

    def __init__(self, workload: Workload) -> None:
        self._workload = workload
        self.workspace = Workspace(workload)
        self._d = len(self.workspace.model.vector)
        self._matrix = torch.empty(0, self._d, device=workload.device)

    def train(
        self,
        trainer: Trainer,
        tasks: Sequence[ClientTask],
        go_on: Callable[[int], bool] = _always,
    ) -> Updates:
        """Updates in task order; their rows are overwritten by the next call.

        `go_on` is asked before every client, with the number of those that have been trained;
        where it says no, the updates are theirs alone.
        """
        matrix = self.rows_for(trainer, len(tasks))
        reports: list[ClientReport] = []
        for task, row in zip(tasks, matrix, strict=True):  # a loop: a comprehension is a frame more
            if not go_on(len(reports)):
                break
            reports.append(self.workspace.train(trainer, task, row))
        done = len(reports)
        return Updates.of(matrix[:done], tasks[:done], reports)

    def rows_for(self, trainer: Trainer, n: int) -> Tensor:
        """The update matrix `[n, D]`, to be written to."""
        width = row_size(sends_of(trainer), self._d)
        if len(self._matrix) < n or self._matrix.shape[1] != width:
            self._matrix = self._matrix.new_empty(n, width)
        return self._matrix[:n]

    def train_merged(
        self, trainer: Trainer, tasks: Sequence[ClientTask], merger: Merges
    ) -> Updates:
        """Updates in task order, merged block by block; `[size, D]` is held at a time."""
        rows: list[Tensor] = []
        reports: list[ClientReport] = []
        for first in range(0, len(tasks), merger.size):
            block = tasks[first : first + merger.size]
            matrix = self.rows_for(trainer, len(block))
            said = [
                self.workspace.train(trainer, task, row)
                for task, row in zip(block, matrix, strict=True)
            ]
            rows.append(merger.merged(Updates.of(matrix, block, said)).matrix)
            reports += said
        merged = torch.cat(rows) if rows else self.rows_for(trainer, 0)
        return replace(Updates.of(merged, tasks, reports), in_a_row=merger.size)

    def evaluate(self, models: Sequence[Tensor], split: str) -> list[Tensor]:
        """Logits of each model on every row of a part."""
        rows = len(self._workload.evaluation[split])
        return [self.workspace.evaluate(model, split, 0, rows) for model in models]

    def close(self) -> None:
        """Nothing to give back."""
