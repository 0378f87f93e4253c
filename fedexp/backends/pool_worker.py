"""A worker process of a pool: it takes jobs from the shared counter until the parent is gone.

Rows and states are written straight to where they belong on the board; reports are the answer.
"""

from __future__ import annotations

import signal
import traceback
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

import torch

from fedexp.backends.board import Board, write
from fedexp.backends.workspace import Workspace
from fedexp.core.checks import InputError
from fedexp.core.library_warnings import into_the_log
from fedexp.core.own_code import own_code_named, to_be_sent
from fedexp.core.protocols import Trainer
from fedexp.core.types import ClientReport, ClientTask
from fedexp.core.workload import Workload

Job = tuple[int, int, int, int, int | None]
"""(row, client_id, round, seed, shard) of a client's task: what is not on the board."""


def job_of(row: int, task: ClientTask) -> Job:
    """Of the task whose row is given."""
    return row, task.client_id, task.round, task.seed, task.shard


@dataclass(frozen=True)
class Train:
    """Clients to be trained."""

    trainer: Trainer
    own_start: bool
    jobs: tuple[Job, ...]  # longest first

    def __call__(self, job: int, workspace: Workspace, board: Board) -> tuple[int, ClientReport]:
        """The row that was trained, and what its client reports."""
        row, client_id, round, seed, shard = self.jobs[job]
        sent, state = board.matrix[row], board.state_of(row)
        start = sent[: board.models.shape[1]].clone() if self.own_start else board.models[0]
        task = ClientTask(client_id, start, round, seed, state, board.broadcast, shard)
        report = workspace.train(self.trainer, task, sent)
        write(report.state, state)
        return row, replace(report, sent={}, state={})

    def name(self, job: int) -> str:
        """Of a job, for a message."""
        return f"client {self.jobs[job][1]}" if job >= 0 else "the start"


@dataclass(frozen=True)
class Evaluate:
    """Models to be evaluated on a part."""

    split: str
    jobs: tuple[tuple[int, int, int], ...]  # row of `models`, start, stop

    def __call__(self, job: int, workspace: Workspace, board: Board) -> tuple[int, Any]:
        """The job, and its logits."""
        row, start, stop = self.jobs[job]
        # As NumPy: a tensor in an answer would open one more file descriptor.
        return job, workspace.evaluate(board.models[row], self.split, start, stop).numpy()

    def name(self, job: int) -> str:
        """Of a job, for a message."""
        return f"the evaluation on {self.split}"


def serve(number: int, connection: Connection, board: Board, workload: Workload) -> None:
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


def _answer_all(number: int, connection: Connection, board: Board, workspace: Workspace) -> None:
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
                with own_code_named():
                    answers.append(work(job, workspace, board))
            except InputError as error:
                answer = to_be_sent(error, work.name(job))
                break
            except Exception:
                answer = f"{work.name(job)} failed in a worker process:\n{traceback.format_exc()}"
                break
        try:
            connection.send(answer)
        except OSError:
            return
