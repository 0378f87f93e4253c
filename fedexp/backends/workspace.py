"""What every worker has on its desk: one model to train in, all the data, nobody's state.

Both backends do their work through this class, so they run the same kernels on the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor

from fedexp.core.flat import FlatModel
from fedexp.core.protocols import Trainer
from fedexp.core.types import ClientReport, ClientTask, Split, Workload

EVALUATION_BATCH = 200  # images; large enough to fill the processor, small enough for its cache


@final
class Workspace:
    """One model, the data and the shards of a workload, on its device."""

    def __init__(self, workload: Workload) -> None:
        device = workload.device
        self.model = FlatModel(workload.model, device)
        self._train = _to(workload.train, device)
        self._shards = workload.shards
        self._evaluation: Mapping[str, Split] = {
            name: _to(split, device) for name, split in workload.evaluation.items()
        }
        self._device = device

    def train(self, trainer: Trainer, task: ClientTask, delta: Tensor) -> ClientReport:
        """One client's local training; writes local - global to `delta` `[d]`."""
        indices = torch.from_numpy(self._shards[task.client_id]).to(self._device)
        self.model.load(task.params)
        report = trainer(self.model, self._train.rows(indices), task)
        torch.sub(self.model.vector, task.params, out=delta)
        return report

    def evaluate(self, vector: Tensor, split: str, start: int, stop: int) -> Tensor:
        """Logits `[stop - start, num_classes]` of rows start..stop-1 of a part, on the CPU."""
        self.model.load(vector)
        self.model.module.eval()
        x = self._evaluation[split].x[start:stop]
        with torch.inference_mode():
            logits = [
                self.model.module(self.model.arrange(batch)) for batch in x.split(EVALUATION_BATCH)
            ]
        return torch.cat(logits).cpu()


def _to(split: Split, device: torch.device) -> Split:
    return Split(split.x.to(device), split.y.to(device))
