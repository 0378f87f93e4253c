"""Blocks of clients that train together, on one device: the backend for a GPU.

A small model's step is dozens of launches of little work, and a GPU waits for the next one. Here a
step is that of a whole block of clients (`fedexp.core.stacked`), the data and the update matrix
stay on the device, and nothing in a step waits for it.

The same clients, batches and steps as in process, and figures equal to float32's rounding: the bits
are others (`own_bits`), so that a run says that it was made so. What cannot be trained in blocks
goes one client after the other, as in process, and the log says why.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import ClassVar, final

import numpy as np
import torch
from torch import Tensor

from fedexp.backends.block_size import Room, numbers_kept, usable_bytes
from fedexp.backends.in_process import InProcess
from fedexp.backends.workspace import check_state, sends_of, write_sent
from fedexp.core.blocks import Block, TrainsBlocks, why_no_blocks
from fedexp.core.checks import at_least
from fedexp.core.devices import on_device
from fedexp.core.mapping import let_go
from fedexp.core.protocols import Trainer
from fedexp.core.reports import check_report
from fedexp.core.stacked import StackedModel, why_not_stacked
from fedexp.core.types import ClientReport, ClientTask, Updates
from fedexp.core.workload import Workload

log = logging.getLogger(__name__)


@final
class Blocks:
    """Trains up to `block_size` clients at once.

    Args:
        workload: model, data and shards.
        block_size: clients a block; None takes as many as the device's memory is enough for.
    """

    own_bits: ClassVar[bool] = True

    def __init__(self, workload: Workload, block_size: int | None) -> None:
        if block_size is not None:
            at_least(1, block_size=block_size)
        self._block_size = block_size
        self._in_process = InProcess(workload)
        self._workspace = self._in_process.workspace
        self._shards, self._labels = workload.shards, workload.train.y
        self._why_not = why_not_stacked(self._workspace.model, self._workspace.examples)
        self._said: set[str] = set()
        self._stacked: StackedModel | None = None

    def train(self, trainer: Trainer, tasks: Sequence[ClientTask]) -> Updates:
        """Updates in task order; their rows are overwritten by the next call."""
        why_not = self._why_not or why_no_blocks(trainer)
        if why_not or not isinstance(trainer, TrainsBlocks):
            self._say(f"backend: one client at a time, because {why_not}")
            return self._in_process.train(trainer, tasks)
        matrix = self._in_process.rows_for(trainer, len(tasks))
        if not tasks:
            return Updates.of(matrix, (), ())
        sizes = [len(self._shards[task.examples_of]) for task in tasks]
        order = sorted(range(len(tasks)), key=lambda row: -sizes[row])
        reports: dict[int, ClientReport] = {}
        for rows in _evenly(order, self._most(trainer, sizes, matrix)):
            block = self._block([tasks[row] for row in rows])
            made = trainer.train_block(block)
            moved = matrix.new_empty(len(rows), matrix.shape[1])
            block.model.write(block.starts, moved[:, : block.model.d])
            for report, task, row in zip(made, block.tasks, moved, strict=True):
                check_report(report, trainer)
                if report.sent or len(row) > block.model.d:
                    write_sent(report.sent, sends_of(trainer), block.model.d, row)
                if report.state or task.state:
                    check_state(report.state, task.state)
            matrix.index_copy_(0, on_device(np.array(rows), matrix.device), moved)
            reports |= dict(zip(rows, made, strict=True))
            let_go(self._workspace.examples.x)
        return Updates.of(matrix, tasks, [reports[row] for row in range(len(tasks))])

    def evaluate(self, models: Sequence[Tensor], split: str) -> list[Tensor]:
        """As `InProcess.evaluate`."""
        return self._in_process.evaluate(models, split)

    def close(self) -> None:
        """Nothing to give back."""

    def _most(self, trainer: TrainsBlocks, sizes: Sequence[int], matrix: Tensor) -> int:
        """Clients in a block."""
        if self._block_size is not None:
            return self._block_size
        model, data = self._workspace.model, self._workspace.examples
        taken = sum(tensor.nbytes for tensor in data.tensors()) + matrix.nbytes
        d, bytes = len(model.vector), usable_bytes(model.vector.device)
        return Room(bytes, taken, d, numbers_kept(model, data)).clients(trainer, max(sizes))

    def _block(self, tasks: Sequence[ClientTask]) -> Block:
        """With the clients' starts loaded."""
        if self._stacked is None or len(self._stacked) != len(tasks):
            self._stacked = None  # first, for there may not be room for both
            self._stacked = StackedModel(self._workspace.model, len(tasks))
        shards = tuple(self._shards[task.examples_of] for task in tasks)
        labels = tuple(self._labels[torch.from_numpy(shard)] for shard in shards)
        block = Block(self._stacked, self._workspace.examples, shards, labels, tuple(tasks))
        self._stacked.load(block.starts)
        return block

    def _say(self, sentence: str) -> None:
        """Once."""
        if sentence not in self._said:
            self._said.add(sentence)
            log.warning(sentence)


def _evenly(order: Sequence[int], most: int) -> list[list[int]]:
    """Cut into as few blocks of at most `most` as there can be, equal to one.

    >>> _evenly(range(5), 2)
    [[0, 1], [2, 3], [4]]
    """
    blocks = math.ceil(len(order) / most)
    return [part.tolist() for part in np.array_split(np.array(order), blocks)]
