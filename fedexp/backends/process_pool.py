"""Persistent worker processes, one torch thread each, over shared memory.

The data, the models to start from, what the server sends with them, what the clients of the round
keep and the `[n, D]` update matrix lie in shared memory, once. A round is one short message to
every worker; the workers then take jobs from a shared counter, the longest client first, write rows
and states straight to where they belong and answer with their reports. Rows stand in cohort order
and seeds are keyed by client, so the bits do not depend on the number of workers.

torch shares memory through file descriptors whose names are unlinked at once: when the processes
are gone, however they went, nothing stays behind.

On Linux the workers are forked from a server process that has imported torch and fedexp, and
computed nothing: one import for all workers, and none for the next pool of this process. It has no
threads and no data, so that forking is safe, and goes with the process that it serves. Elsewhere
every worker is spawned and imports for itself: on macOS torch's libraries do not survive a fork,
and Windows has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from typing import Any, final

import torch
from torch import Tensor

from fedexp.backends.board import Board, Needs, refuse_small_shared_memory, shared, write
from fedexp.backends.launch import (
    Launch,
    context_that_preloads,
    main_left_out,
    refuse_what_cannot_be_sent,
    signals_held_back,
)
from fedexp.backends.pool_worker import Evaluate, Train, job_of, serve
from fedexp.backends.workspace import layout_of, sends_of
from fedexp.core.checks import InputError, at_least
from fedexp.core.flat import vector_of
from fedexp.core.protocols import Trainer
from fedexp.core.types import ClientTask, Updates, row_size
from fedexp.core.workload import EVALUATION_BATCH, Workload

PRELOADED = [serve.__module__]  # with all that it needs


@final
class ProcessPool:
    """A pool of `workers` processes that live until `close`; they start with the first call.

    Args:
        workload: model, data and shards; its tensors move to shared memory.
        workers: number of processes.

    Raises:
        TooLittleSharedMemory: from a call, if the data and the updates would not fit.
        RuntimeError: from a call, if a worker raised; names the client.
        ChildProcessError: from a call, if a worker died; names the client.
    """

    def __init__(self, workload: Workload, workers: int) -> None:
        at_least(1, workers=workers)
        if workload.device.type != "cpu":
            raise InputError(
                "worker processes compute on the CPU; use backend=in_process",
                "device",
                workload.device,
            )
        self._workload, self._count = workload, workers
        self._d = len(vector_of(workload.model))
        self._processes: list[Any] = []
        self._connections: list[Connection] = []
        self._board: Board | None = None
        self._made_for = Needs(0, 0, {}, {})
        self._launch: Launch | None = None
        self._wanted = True

    def train(self, trainer: Trainer, tasks: Sequence[ClientTask]) -> Updates:
        """Updates in task order; their rows and states are overwritten by the next call."""
        n = len(tasks)
        if not tasks:
            return Updates.of(torch.empty(0, row_size(sends_of(trainer), self._d)), (), ())
        like = tasks[0]
        board = self._running(self._needs(trainer, tasks), trainer)
        matrix = board.matrix[:n]
        own_start = any(task.params is not like.params for task in tasks)
        for row, task in enumerate(tasks):
            write(task.state, board.state_of(row))
            if own_start:
                matrix[row, : self._d] = task.params
        write(like.broadcast, board.broadcast)
        board.models[0] = like.params
        sizes = [len(self._workload.shards[task.examples_of]) for task in tasks]
        order = sorted(range(n), key=lambda row: -sizes[row])
        jobs = tuple(job_of(row, tasks[row]) for row in order)
        reports = dict(self._run(Train(trainer, own_start, jobs)))
        reported = [replace(reports[row], state=board.state_of(row)) for row in range(n)]
        return Updates.of(matrix, tasks, reported)

    def evaluate(self, models: Sequence[Tensor], split: str) -> list[Tensor]:
        """Logits of each model on every row of a part, in models' order."""
        made = self._board is not None
        board = self._running(self._made_for if made else Needs(1, self._d, {}, {}))
        rows = len(self._workload.evaluation[split])
        pieces = [
            (start, min(start + EVALUATION_BATCH, rows))
            for start in range(0, rows, EVALUATION_BATCH)
        ]
        logits: list[Tensor] = []
        # Not in the matrix: what the clients sent in this round is still to be recorded.
        for first in range(0, len(models), len(board.models)):
            batch = models[first : first + len(board.models)]
            for row, model in enumerate(batch):
                board.models[row] = model
            jobs = tuple((row, *piece) for row in range(len(batch)) for piece in pieces)
            answers = dict(self._run(Evaluate(split, jobs)))
            parts = [torch.from_numpy(answers[job]) for job in range(len(jobs))]
            logits += [
                torch.cat(parts[row * len(pieces) : (row + 1) * len(pieces)])
                for row in range(len(batch))
            ]
        return logits

    def close(self) -> None:
        """End the workers and drop the shared memory."""
        self._wanted = False
        if self._launch is not None:
            self._end_workers()  # or the launch would wait until they are ready
            # Not without it: a worker that nobody knows of yet would complain of what is gone.
            self._launch.join()
        for connection in self._connections:
            connection.close()
        self._end_workers()
        for process in self._processes:
            process.join()
        self._processes, self._connections, self._board = [], [], None
        self._launch = None

    def _end_workers(self) -> None:
        for process in tuple(self._processes):
            process.terminate()

    def start(self, trainer: Trainer, tasks: Sequence[ClientTask]) -> None:
        """Start the workers for rounds like this one, and do not wait for them.

        Between two clients only: what the processes share is moved to where all of them see it.

        Raises:
            TooLittleSharedMemory: as from `train`.
        """
        self._start(self._needs(trainer, tasks), trainer)

    @property
    def is_ready(self) -> bool:
        """Whether the workers wait for work.

        Raises:
            ChildProcessError: one of them died at its start, or could not be started.
        """
        if self._launch is None or self._launch.is_alive():
            return False
        self._launch.result()
        return True

    def _needs(self, trainer: Trainer, tasks: Sequence[ClientTask]) -> Needs:
        width, like = row_size(sends_of(trainer), self._d), tasks[0]
        return Needs(len(tasks), width, layout_of(like.state), layout_of(like.broadcast))

    def _running(self, needs: Needs, trainer: Trainer | None = None) -> Board:
        """The running pool's board, with at least as many rows as are needed."""
        board = self._start(needs, trainer)
        assert self._launch is not None
        try:
            self._launch.join()
            self._launch.result()
        except BaseException:
            self.close()
            raise
        return board

    def _start(self, needs: Needs, trainer: Trainer | None) -> Board:
        """Make the board and begin to start the workers, unless that is done."""
        if self._board is not None and needs.met_by(self._made_for):
            return self._board
        self.close()  # for example a Poisson cohort larger than any before
        needs = replace(needs, rows=max(needs.rows, self._workload.cohort_size))
        refuse_small_shared_memory(self._workload, needs.shapes(self._count, self._d))
        self._workload = shared(self._workload)
        context = context_that_preloads(PRELOADED)
        board = Board.made_for(needs, self._count, self._d, context)
        self._board, self._made_for = board, needs
        self._wanted = True
        self._launch = Launch(self._launched, context, board, trainer)
        self._launch.begin()
        return board

    def _launched(self, context: Any, board: Board, trainer: Trainer | None) -> None:
        """Start the workers and wait until each says that it is ready."""
        refuse_what_cannot_be_sent(trainer)
        with signals_held_back(), main_left_out(self._workload, trainer):
            for number in range(self._count):
                if not self._wanted:
                    raise ChildProcessError("the pool was closed while its workers started")
                ours, theirs = context.Pipe()
                process = context.Process(
                    target=serve, args=(number, theirs, board, self._workload), daemon=True
                )
                process.start()
                theirs.close()
                self._processes.append(process)
                self._connections.append(ours)
        for process, connection in zip(self._processes, self._connections, strict=True):
            wait([connection, process.sentinel])
            _answer_of(connection, process, "its start")

    def _run(self, work: Train | Evaluate) -> list[tuple[int, Any]]:
        """Hand `work` to every worker and gather their answers; never waits for a dead one."""
        assert self._board is not None
        self._board.next_job.value = 0
        self._board.at_work.fill_(-1)
        answers: list[tuple[int, Any]] = []
        try:
            for connection, process in zip(self._connections, self._processes, strict=True):
                try:
                    connection.send(work)
                except OSError as error:  # not the broken pipe of an output that nobody reads
                    raise _died(process, "rest, between two tasks,") from error
            waiting = set(range(self._count))
            while waiting:
                ready = wait(
                    [self._connections[w] for w in waiting]
                    + [self._processes[w].sentinel for w in waiting]
                )
                for worker in sorted(waiting):
                    connection, process = self._connections[worker], self._processes[worker]
                    if connection in ready or process.sentinel in ready:
                        at_work = work.name(int(self._board.at_work[worker]))
                        answers += _answer_of(connection, process, at_work)
                        waiting.remove(worker)
        except BaseException:
            self.close()
            raise
        return answers


def _answer_of(connection: Connection, process: Any, at_work: str) -> list[tuple[int, Any]]:
    try:
        answer = connection.recv()
    except (EOFError, OSError) as error:
        raise _died(process, at_work) from error
    if isinstance(answer, InputError):
        raise answer
    if isinstance(answer, str):
        raise RuntimeError(answer)
    return list(answer)


def _died(process: Any, at_work: str) -> ChildProcessError:
    process.join()
    return ChildProcessError(
        f"a worker process died at {at_work} with exit code {process.exitcode} (a negative one is "
        "the signal that ended it; -9 is often the system, out of memory)"
    )
