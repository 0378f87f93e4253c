"""Starts in this process, and moves to a pool where the run is long enough to pay for one.

A pool costs one to two seconds before its first answer (every worker imports torch). The first
round runs here and is timed; if the rounds left would take longer than `PAYS_AFTER`, the pool takes
over. The bits are the same either way, so the choice may depend on the machine's speed, and a
machine without room for a pool (a container has 64 MB of shared memory) goes on in this process.

On a GPU there is no pool: clients train in blocks (`fedexp.backends.blocks`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import final

from torch import Tensor

from fedexp.backends.blocks import Blocks
from fedexp.backends.in_process import InProcess
from fedexp.backends.process_pool import ProcessPool, TooLittleSharedMemory
from fedexp.core.capabilities import has_own_bits
from fedexp.core.checks import at_least
from fedexp.core.protocols import Backend, Trainer
from fedexp.core.types import ClientTask, Updates
from fedexp.core.workload import Workload

PAYS_AFTER = 8.0  # seconds of work left, per further core about four times a pool's start-up

log = logging.getLogger(__name__)


@final
class Auto:
    """In process first, a pool of as many workers as there are cores when that pays."""

    def __init__(self, workload: Workload, workers: int, rounds: int) -> None:
        at_least(1, workers=workers)
        self._workload, self._workers, self._rounds_left = workload, workers, rounds
        on_cpu = workload.device.type == "cpu"
        self._backend: Backend = (
            InProcess(workload) if on_cpu else Blocks(workload, block_size=None)
        )
        self._decided = workers < 2 or not on_cpu

    @property
    def own_bits(self) -> bool:
        """Whether clients train in blocks, as on a GPU."""
        return has_own_bits(self._backend)

    def train(self, trainer: Trainer, tasks: Sequence[ClientTask]) -> Updates:
        """As `InProcess.train` or `ProcessPool.train`, which agree bit for bit."""
        started = time.perf_counter()
        try:
            updates = self._backend.train(trainer, tasks)
        except TooLittleSharedMemory as error:
            updates = self._in_process(error).train(trainer, tasks)
        self._rounds_left -= 1
        if not self._decided and len(tasks) > 1:
            seconds = time.perf_counter() - started
            self._decided = True
            if seconds * self._rounds_left > PAYS_AFTER:
                log.info(
                    "backend: %d worker processes (a round took %.2g s in one)",
                    self._workers,
                    seconds,
                )
                # The rows just returned lie in the old backend's matrix, which they keep alive.
                self._backend = ProcessPool(self._workload, self._workers)
        return updates

    def evaluate(self, models: Sequence[Tensor], split: str) -> list[Tensor]:
        """As `InProcess.evaluate` or `ProcessPool.evaluate`."""
        try:
            return self._backend.evaluate(models, split)
        except TooLittleSharedMemory as error:
            return self._in_process(error).evaluate(models, split)

    def close(self) -> None:
        """End the pool, if there is one."""
        self._backend.close()

    def _in_process(self, error: TooLittleSharedMemory) -> Backend:
        """From here on one process, because the machine cannot hold a pool."""
        log.warning("backend: goes on in one process, because a pool %s", error.reason)
        self._backend.close()
        self._backend = InProcess(self._workload)
        return self._backend
