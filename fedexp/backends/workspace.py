"""What every worker has on its desk: one model to train in, all the data, nobody's state.

Both backends do their work through this class, so they run the same kernels on the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import numpy as np
import torch
from torch import Tensor

from fedexp.core.flat import TaskModel
from fedexp.core.protocols import Trainer
from fedexp.core.types import ClientReport, ClientTask, Split, Workload

EVALUATION_BATCH = 200  # images; large enough to fill the processor, small enough for its cache


@final
class Workspace:
    """One model, the data and the shards of a workload, on its device."""

    def __init__(self, workload: Workload) -> None:
        device = workload.device
        self.model = TaskModel(workload.model, device, workload.task, workload.normalisation)
        self._train = workload.train.to(device)
        self._shards = workload.shards
        self._evaluation: Mapping[str, Split] = {
            name: split.to(device) for name, split in workload.evaluation.items()
        }
        self._device = device

    def train(self, trainer: Trainer, task: ClientTask, delta: Tensor) -> ClientReport:
        """One client's local training; writes local - global to `delta` `[d]`."""
        self.model.load(task.params)
        report = trainer(self.model, self._shard(self._shards[task.client_id]), task)
        torch.sub(self.model.vector, task.params, out=delta)
        return report

    def evaluate(self, vector: Tensor, split: str, start: int, stop: int) -> Tensor:
        """Logits `[stop - start, num_classes]` of rows start..stop-1 of a part, on the CPU."""
        self.model.load(vector)
        self.model.module.eval()
        part = self._evaluation[split]
        with torch.inference_mode():
            logits = [
                self.model.module(
                    self.model.arrange(part.between(first, min(first + EVALUATION_BATCH, stop)))
                )
                for first in range(start, stop, EVALUATION_BATCH)
            ]
        return torch.cat(logits).cpu()

    def _shard(self, rows: np.ndarray) -> Split:
        """A client's examples: a view where they lie side by side (who holds all), else a copy."""
        first, last = int(rows[0]), int(rows[-1])
        if last - first + 1 == len(rows):  # they are sorted, and none comes twice
            return self._train.between(first, last + 1)
        return self._train.rows(torch.from_numpy(rows).to(self._device))
