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

import ctypes
import math
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any, final

import torch
import torch.multiprocessing as multiprocessing
from torch import Tensor

from fedexp.backends.workspace import Layout, Workspace, layout_of, sends_of
from fedexp.core.checks import InputError, at_least
from fedexp.core.flat import vector_of
from fedexp.core.library_warnings import into_the_log
from fedexp.core.mapping import file_of
from fedexp.core.protocols import Trainer
from fedexp.core.types import ClientReport, ClientTask, Split, State, Updates, is_mapped, row_size
from fedexp.core.workload import EVALUATION_BATCH, Workload

SHARED_MEMORY = "/dev/shm"
PRELOADED = [__name__]  # what the server imports: this module, and all that it needs
BEGINS_WITHIN = 5.0  # seconds in which a thread that was started begins
FIRST_START = 3.0  # seconds, before one was measured in this process


@dataclass(frozen=True)
class _Needs:
    """What a board must hold; equal but for `rows`, or the pool starts again."""

    rows: int  # clients
    width: int  # D
    state: Layout  # of one client
    broadcast: Layout

    def met_by(self, other: _Needs) -> bool:
        """Whether a board made for `other` will do: for the bits a row must not be any wider."""
        return self.rows <= other.rows and replace(self, rows=other.rows) == other


@dataclass(frozen=True)
class _Board:
    """What all processes see: what work begins with, rows to write, and the job counter."""

    models: Tensor  # [workers, d] to evaluate; before training, in the first the shared start
    broadcast: Mapping[str, Tensor]
    matrix: Tensor  # [rows, D]; before a job, in front that job's own start if it has one
    state: Mapping[str, Tensor]  # [rows, *shape] each; a client's own before its job and after it
    next_job: Any  # multiprocessing.Value: jobs handed out so far
    at_work: Tensor  # [workers] int64: the job each worker is at, so that a dead one can be named

    def state_of(self, row: int) -> State:
        """One client's tensors, as views."""
        return {name: tensor[row] for name, tensor in self.state.items()}


_Job = tuple[int, int, int, int, int | None]
"""(row, client_id, round, seed, shard) of a client's task: what is not on the board."""


def _job(row: int, task: ClientTask) -> _Job:
    return row, task.client_id, task.round, task.seed, task.shard


@dataclass(frozen=True)
class _Train:
    trainer: Trainer
    own_start: bool
    jobs: tuple[_Job, ...]  # longest first

    def __call__(self, job: int, workspace: Workspace, board: _Board) -> tuple[int, ClientReport]:
        row, client_id, round, seed, shard = self.jobs[job]
        sent, state = board.matrix[row], board.state_of(row)
        start = sent[: board.models.shape[1]].clone() if self.own_start else board.models[0]
        task = ClientTask(client_id, start, round, seed, state, board.broadcast, shard)
        report = workspace.train(self.trainer, task, sent)
        _write(report.state, state)
        return row, replace(report, sent={}, state={})

    def name(self, job: int) -> str:
        return f"client {self.jobs[job][1]}" if job >= 0 else "the start"


@dataclass(frozen=True)
class _Evaluate:
    split: str
    jobs: tuple[tuple[int, int, int], ...]  # row of `models`, start, stop

    def __call__(self, job: int, workspace: Workspace, board: _Board) -> tuple[int, Any]:
        row, start, stop = self.jobs[job]
        # As NumPy: a tensor in an answer would open one more file descriptor.
        return job, workspace.evaluate(board.models[row], self.split, start, stop).numpy()

    def name(self, job: int) -> str:
        return f"the evaluation on {self.split}"


class TooLittleSharedMemory(InputError):
    """What all workers see would not fit into the shared memory that is free."""


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
        self._board: _Board | None = None
        self._made_for = _Needs(0, 0, {}, {})
        self._launch: _Launch | None = None
        self._wanted = True

    def train(self, trainer: Trainer, tasks: Sequence[ClientTask]) -> Updates:
        """Updates in task order; their rows and states are overwritten by the next call."""
        n = len(tasks)
        if not tasks:
            return Updates.of(torch.empty(0, row_size(sends_of(trainer), self._d)), (), ())
        like = tasks[0]
        board = self._running(self._needs(trainer, tasks))
        matrix = board.matrix[:n]
        own_start = any(task.params is not like.params for task in tasks)
        for row, task in enumerate(tasks):
            _write(task.state, board.state_of(row))
            if own_start:
                matrix[row, : self._d] = task.params
        _write(like.broadcast, board.broadcast)
        board.models[0] = like.params
        sizes = [len(self._workload.shards[task.examples_of]) for task in tasks]
        order = sorted(range(n), key=lambda row: -sizes[row])
        jobs = tuple(_job(row, tasks[row]) for row in order)
        reports = dict(self._run(_Train(trainer, own_start, jobs)))
        reported = [replace(reports[row], state=board.state_of(row)) for row in range(n)]
        return Updates.of(matrix, tasks, reported)

    def evaluate(self, models: Sequence[Tensor], split: str) -> list[Tensor]:
        """Logits of each model on every row of a part, in models' order."""
        made = self._board is not None
        board = self._running(self._made_for if made else _Needs(1, self._d, {}, {}))
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
            answers = dict(self._run(_Evaluate(split, jobs)))
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

        Between two rounds only: what the processes share is moved to where all of them see it.

        Raises:
            TooLittleSharedMemory: as from `train`.
        """
        self._start(self._needs(trainer, tasks))

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

    def _needs(self, trainer: Trainer, tasks: Sequence[ClientTask]) -> _Needs:
        width, like = row_size(sends_of(trainer), self._d), tasks[0]
        return _Needs(len(tasks), width, layout_of(like.state), layout_of(like.broadcast))

    def _running(self, needs: _Needs) -> _Board:
        """The running pool's board, with at least as many rows as are needed."""
        board = self._start(needs)
        assert self._launch is not None
        try:
            self._launch.join()
            self._launch.result()
        except BaseException:
            self.close()
            raise
        return board

    def _start(self, needs: _Needs) -> _Board:
        """Make the board and begin to start the workers, unless that is done."""
        if self._board is not None and needs.met_by(self._made_for):
            return self._board
        self.close()  # for example a Poisson cohort larger than any before
        rows = max(needs.rows, self._workload.cohort_size)
        shapes = {
            "models": ((self._count, self._d), torch.float32),
            "matrix": ((rows, needs.width), torch.float32),
            **{f"broadcast.{k}": layout for k, layout in needs.broadcast.items()},
            **{f"state.{k}": ((rows, *shape), t) for k, (shape, t) in needs.state.items()},
        }
        _refuse_small_shared_memory(self._workload, sum(map(_bytes, shapes.values())))
        self._workload = _shared(self._workload)
        context = _context()
        # Zeros: pages are touched here, once.
        made = {k: torch.zeros(shape, dtype=t).share_memory_() for k, (shape, t) in shapes.items()}
        board = _Board(
            models=made["models"],
            broadcast={name: made[f"broadcast.{name}"] for name in needs.broadcast},
            matrix=made["matrix"],
            state={name: made[f"state.{name}"] for name in needs.state},
            next_job=context.Value(ctypes.c_long, 0),
            at_work=torch.zeros(self._count, dtype=torch.int64).share_memory_(),
        )
        self._board, self._made_for = board, replace(needs, rows=rows)
        self._wanted = True
        self._launch = _Launch(self._launched, context, board)
        self._launch.begin()
        return board

    def _launched(self, context: Any, board: _Board) -> None:
        """Start the workers and wait until each says that it is ready."""
        with _signals_held_back():
            for number in range(self._count):
                if not self._wanted:
                    raise ChildProcessError("the pool was closed while its workers started")
                ours, theirs = context.Pipe()
                process = context.Process(
                    target=_work, args=(number, theirs, board, self._workload), daemon=True
                )
                process.start()
                theirs.close()
                self._processes.append(process)
                self._connections.append(ours)
        for process, connection in zip(self._processes, self._connections, strict=True):
            wait([connection, process.sentinel])
            _answer_of(connection, process, "its start")

    def _run(self, work: _Train | _Evaluate) -> list[tuple[int, Any]]:
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


@final
class _Launch:
    """A start of workers, in a thread: it waits, for a process that imports, most of the time."""

    seconds = FIRST_START  # that the latest one in this process took

    def __init__(self, launch: Callable[..., None], *arguments: Any) -> None:
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(launch, *arguments), daemon=True)
        self._begun, self._done = threading.Event(), threading.Event()

    def begin(self) -> None:
        """Apart from making it: a signal that raises in here finds a launch that can be joined."""
        self._thread.start()

    def _run(self, launch: Callable[..., None], *arguments: Any) -> None:
        self._begun.set()
        started = time.perf_counter()
        try:
            launch(*arguments)
            _Launch.seconds = time.perf_counter() - started
        except BaseException as error:  # for who asks for the result
            self._error = error
        finally:
            self._done.set()

    def is_alive(self) -> bool:
        return not self._done.is_set()

    def join(self) -> None:
        if self._begun.wait(BEGINS_WITHIN):
            self._done.wait()

    def result(self) -> None:
        """Raise what went wrong."""
        if isinstance(self._error, ChildProcessError):
            raise self._error
        if self._error is not None:
            raise ChildProcessError(
                f"worker processes do not start: {self._error}"
            ) from self._error


def seconds_to_start() -> float:
    """How long a pool takes to start: measured, once one has started in this process."""
    return _Launch.seconds


def _context() -> Any:
    """How workers are started; see the module's docstring."""
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with _held_back(signal.SIGHUP):  # alone: it lets Ctrl-C through again, which it ignores itself
        resource_tracker.ensure_running()
    with _signals_held_back(), _nothing_of_this_folder():
        forkserver.ensure_running()
    return context


@contextmanager
def _nothing_of_this_folder() -> Iterator[None]:
    """The server imports by name, and a file of that name may lie in the current folder."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Ctrl-C and a closed terminal go to all its processes and are the parent's to handle.

    The server and the workers inherit that they are blocked, from their first instruction on; here
    they are held back only.
    """
    if not hasattr(signal, "pthread_sigmask"):  # on Windows, where workers ignore them
        yield
        return
    with _held_back(signal.SIGINT, signal.SIGHUP):
        yield


@contextmanager
def _held_back(*signals: signal.Signals) -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _bytes(layout: tuple[tuple[int, ...], torch.dtype]) -> int:
    return math.prod(layout[0]) * layout[1].itemsize


def _write(state: State, places: State) -> None:
    """Write named tensors to where those of the same names lie."""
    for name, tensor in state.items():
        places[name].copy_(tensor)


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


def _work(number: int, connection: Connection, board: _Board, workload: Workload) -> None:
    """A worker's life: take messages until the parent is gone."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(signal, "SIGHUP"):  # goes to all processes of a terminal too
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if not hasattr(signal, "pthread_sigmask"):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    workspace = Workspace(workload)
    with suppress(OSError):  # the parent is gone, as the next look at it will tell
        connection.send([])  # ready
    with into_the_log():  # which a worker has none of: what warns here does so in one process too
        _answer_all(number, connection, board, workspace)


def _answer_all(number: int, connection: Connection, board: _Board, workspace: Workspace) -> None:
    while True:
        try:
            work = connection.recv()
        except (EOFError, OSError):
            return
        answers: list[tuple[int, Any]] = []
        answer: object = answers
        while (
            not connection.poll()
        ):  # nothing is said in the middle of it but that the parent is gone
            with board.next_job.get_lock():
                job = board.next_job.value
                board.next_job.value += 1
            if job >= len(work.jobs):
                break
            board.at_work[number] = job
            try:
                answers.append(work(job, workspace, board))
            except InputError as error:
                answer = error
                break
            except Exception:
                answer = f"{work.name(job)} failed in a worker process:\n{traceback.format_exc()}"
                break
        try:
            connection.send(answer)
        except OSError:
            return


def _shared(workload: Workload) -> Workload:
    """The workload with its data in shared memory, once, in the size they have when stored."""
    evaluation = {name: split.shared() for name, split in workload.evaluation.items()}
    return replace(workload, train=workload.train.shared(), evaluation=evaluation)


def _tensors(workload: Workload) -> list[Tensor]:
    splits: list[Split] = [workload.train, *workload.evaluation.values()]
    return [tensor for split in splits for tensor in split.tensors()]


def _refuse_small_shared_memory(workload: Workload, more: int) -> None:
    # Writing past the end of /dev/shm kills the process with SIGBUS; ask beforehand.
    if not os.path.isdir(SHARED_MEMORY):
        return
    moved = (t for t in _tensors(workload) if file_of(t) is None)
    to_come = (t for t in moved if is_mapped(t) or not bool(t.is_shared()))
    needed = more + sum(t.nbytes for t in to_come)
    free = shutil.disk_usage(SHARED_MEMORY).free
    if needed > free:
        raise TooLittleSharedMemory(
            f"needs {needed / 1e6:.0f} MB of shared memory and {SHARED_MEMORY} has "
            f"{free / 1e6:.0f} MB free; use backend=in_process",
            "backend",
            "process_pool",
        )
