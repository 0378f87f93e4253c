"""Starts in this process, and moves to a pool where the run is long enough to pay for one.

What a round takes here, with its evaluation, is measured; in a first round of seconds, what its
first clients take. If what is left would take longer than `PAYS_AFTER` times what a pool takes to
start (measured too, once one has started in this process), workers are started, and clients go on
here until they are ready; so nobody waits for them. Where no pool can be had (a container has 64 MB
of shared memory, a worker dies at its start) the run stays in this process. The bits are the same
either way, so the choice may depend on the machine's speed.

On a GPU there is no pool: clients train in blocks (`fedexp.backends.blocks`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from functools import partial
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
LOOK_AFTER = 0.25  # seconds of a round, its first client left out: it is the slowest

log = logging.getLogger(__name__)


@final
class Auto:
    """In process first, a pool of as many workers as there are cores when that pays."""

    def __init__(self, workload: Workload, workers: int, rounds: int) -> None:
        at_least(1, workers=workers)
        self._workload, self._workers, self._rounds = workload, workers, rounds
        on_cpu = workload.device.type == "cpu"
        self._here = InProcess(workload) if on_cpu else None  # until a pool is ready
        self._backend: Backend = self._here or Blocks(workload, block_size=None)
        self._coming: ProcessPool | None = None  # a pool whose workers start
        self._decided = workers < 2 or not on_cpu
        self._seconds = 0.0  # of the round so far, its evaluation included
        self._since = 0.0  # when the round's second client began

    @property
    def own_bits(self) -> bool:
        """Whether clients train in blocks, as on a GPU."""
        return has_own_bits(self._backend)

    def train(self, trainer: Trainer, tasks: Sequence[ClientTask]) -> Updates:
        """As `InProcess.train` or `ProcessPool.train`, which agree bit for bit."""
        if not self._decided and self._seconds and len(tasks) > 1:
            self._start_if_it_pays(self._seconds * self._rounds_left(tasks), trainer, tasks)
            self._decided = True
        started = time.perf_counter()
        try:
            if (here := self._here) is None:
                updates = self._backend.train(trainer, tasks)
            else:
                updates = here.train(trainer, tasks, partial(self._here_still, trainer, tasks))
            if here is not None and len(updates) < len(tasks):  # the workers became ready
                done, rows = len(updates), here.rows_for(trainer, len(tasks))
                later = self._backend.train(trainer, tasks[done:])
                rows[done:] = later.matrix
                updates = updates.followed_by(later, rows)
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

    def _here_still(self, trainer: Trainer, tasks: Sequence[ClientTask], done: int) -> bool:
        """Whether the next client trains here; looks, in a long round, whether a pool would pay."""
        if done < 2:
            self._since = time.perf_counter()
        elif not self._decided and (seconds := time.perf_counter() - self._since) > LOOK_AFTER:
            clients = len(tasks) * self._rounds_left(tasks) - done
            self._start_if_it_pays(seconds / (done - 1) * clients, trainer, tasks)
        self._move_if_ready()
        return self._here is not None

    def _rounds_left(self, tasks: Sequence[ClientTask]) -> int:
        """This one included; fewer in a run that was resumed."""
        return self._rounds - tasks[0].round

    def _start_if_it_pays(
        self, seconds: float, trainer: Trainer, tasks: Sequence[ClientTask]
    ) -> None:
        """Start workers if what is left, which takes so long here, is worth it."""
        if seconds < PAYS_AFTER * seconds_to_start():
            return
        said = "backend: %d worker processes (in one, what is left would take %.2g s or more)"
        log.info(said, self._workers, seconds)
        self._decided = True
        self._coming = ProcessPool(self._workload, self._workers)
        try:
            self._coming.start(trainer, tasks)
        except TooLittleSharedMemory as error:
            self._in_process(error)

    def _move_if_ready(self) -> None:
        """Go over to the pool between two clients."""
        try:
            if self._coming is not None and self._coming.is_ready:
                # The rows returned last lie in the old backend's matrix, which they keep alive.
                self._backend, self._coming, self._here = self._coming, None, None
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
            self._backend = self._here = InProcess(self._workload)
        return self._backend
