"""Starts in this process, and moves to a pool where the run is long enough to pay for one.

What a round takes here, with its evaluation, is measured. If the rounds left would take longer than
`PAYS_AFTER` times what a pool takes to start (measured too, once one has started in this process),
workers are started, and rounds go on here until they are ready; so nobody waits for them. Where no
pool can be had (a container has 64 MB of shared memory, a worker dies at its start) the run stays
in this process. The bits are the same either way, so the choice may depend on the machine's speed.

On a GPU there is no pool: clients train in blocks (`fedexp.backends.blocks`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import final

from torch import Tensor

from fedexp.backends.blocks import Blocks
from fedexp.backends.board import TooLittleSharedMemory
from fedexp.backends.in_process import InProcess
from fedexp.backends.launch import seconds_to_start
from fedexp.backends.process_pool import ProcessPool
from fedexp.core.capabilities import has_own_bits
from fedexp.core.checks import at_least
from fedexp.core.protocols import Backend, Trainer
from fedexp.core.types import ClientTask, Updates
from fedexp.core.workload import Workload

PAYS_AFTER = 2.0  # starts of a pool: what its start costs the other cores is to come back

log = logging.getLogger(__name__)


@final
class Auto:
    """In process first, a pool of as many workers as there are cores when that pays."""

    def __init__(self, workload: Workload, workers: int, rounds: int) -> None:
        at_least(1, workers=workers)
        self._workload, self._workers, self._rounds = workload, workers, rounds
        on_cpu = workload.device.type == "cpu"
        self._backend: Backend = (
            InProcess(workload) if on_cpu else Blocks(workload, block_size=None)
        )
        self._coming: ProcessPool | None = None  # a pool whose workers start
        self._decided = workers < 2 or not on_cpu
        self._seconds = 0.0  # of the round so far, its evaluation included

    @property
    def own_bits(self) -> bool:
        """Whether clients train in blocks, as on a GPU."""
        return has_own_bits(self._backend)

    def train(self, trainer: Trainer, tasks: Sequence[ClientTask]) -> Updates:
        """As `InProcess.train` or `ProcessPool.train`, which agree bit for bit."""
        if not self._decided and self._seconds and len(tasks) > 1:
            self._decide(trainer, tasks)
        self._move_if_ready()
        started = time.perf_counter()
        try:
            updates = self._backend.train(trainer, tasks)
        except TooLittleSharedMemory as error:  # for a larger cohort than those before
            updates = self._in_process(error).train(trainer, tasks)
        seconds = time.perf_counter() - started
        if len(tasks) > 1:
            self._seconds = seconds
        elif self._seconds:  # the server's own update, before the clients': from round to round
            self._seconds += seconds
        return updates

    def evaluate(self, models: Sequence[Tensor], split: str) -> list[Tensor]:
        """As `InProcess.evaluate` or `ProcessPool.evaluate`."""
        started = time.perf_counter()
        answers = self._backend.evaluate(models, split)
        if self._seconds:
            self._seconds += time.perf_counter() - started
        return answers

    def close(self) -> None:
        """End the pool, if there is one."""
        self._backend.close()
        if self._coming is not None:
            self._coming.close()

    def _decide(self, trainer: Trainer, tasks: Sequence[ClientTask]) -> None:
        """Start workers if what is left is worth it."""
        self._decided = True
        left = self._rounds - tasks[0].round  # fewer in a run that was resumed
        if self._seconds * left < PAYS_AFTER * seconds_to_start():
            return
        said = "backend: %d worker processes (a round takes %.2g s in one)"
        log.info(said, self._workers, self._seconds)
        self._coming = ProcessPool(self._workload, self._workers)
        try:
            self._coming.start(trainer, tasks)
        except TooLittleSharedMemory as error:
            self._in_process(error)

    def _move_if_ready(self) -> None:
        """Go over to the pool between two rounds."""
        try:
            if self._coming is not None and self._coming.is_ready:
                # The rows returned last lie in the old backend's matrix, which they keep alive.
                self._backend, self._coming = self._coming, None
                log.info("backend: the workers are ready after %.2g s", seconds_to_start())
        except ChildProcessError as error:
            self._in_process(error)

    def _in_process(self, error: Exception) -> Backend:
        """From here on one process, because no pool can be had."""
        log.warning("backend: goes on in one process, because of a pool: %s", error)
        if self._coming is not None:
            self._coming.close()
            self._coming = None
        else:
            self._backend.close()
            self._backend = InProcess(self._workload)
        return self._backend
