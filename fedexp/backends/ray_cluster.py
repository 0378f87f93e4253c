"""Workers of a Ray cluster: of one that starts here and ends with the run, or of one that runs.

The workload and every round's model go into the object store once, from where each node takes them
once. A round is a few tasks of Ray's, the longest clients first; each trains some clients on one
thread, through the same `Workspace` as everywhere, and answers with their rows, which are written
in cohort order. Seeds are keyed by client, so the bits are those of one process, on one kind of
processor.

Ray's own retries are off: a worker or node that dies costs the tasks that it had, which are tried
again elsewhere, and that is said. Where a channel merges rows (`Merges`), the tasks do it, and no
row of a client reaches this process.

Source: Moritz et al., "Ray: A Distributed Framework for Emerging AI Applications", OSDI 2018.
"""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from fedexp.backends import ray_worker
from fedexp.backends.ray_joining import (
    alive,
    cpus,
    handlers_kept,
    join,
    library,
    quiet,
    refuse_an_empty_cluster,
    refuse_small_stores,
    short_folder,
    start,
)
from fedexp.backends.ray_worker import Job, Parcel, Round, Trained, arrays_of, tensors_of
from fedexp.backends.workspace import sends_of
from fedexp.core.checks import InputError, at_least
from fedexp.core.examples import Split
from fedexp.core.flat import vector_of
from fedexp.core.mapping import file_of
from fedexp.core.protocols import Merges, Trainer
from fedexp.core.types import ClientTask, Updates, row_size
from fedexp.core.workload import EVALUATION_BATCH, Workload

TRIES = 3  # of a task whose worker dies
PATIENCE = 20.0  # seconds without an answer, until it is looked whether anybody is there
TASKS_A_WORKER = 4  # in a round; more cost Ray's time, fewer leave workers idle at its end
SMALLEST_STORE = 128 * 2**20  # bytes of a store; Ray wants 75 MB at least

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Piece:
    """What one task of Ray's does: some clients of a cohort, or some rows of an evaluation."""

    name: str  # for a message
    submit: Callable[[], Any]  # to Ray: its reference
    rows: Sequence[int]  # where the answer belongs


@final
class RayCluster:
    """Trains and evaluates on the workers of a Ray cluster; it is joined with the first call.

    Args:
        workload: model, data and shards.
        address: of a cluster that runs, or "auto" for the one of this machine or job; None starts
            one on this machine, which nobody else can join.
        workers: of a cluster that starts here; one that runs has as many as it has CPUs.
        store_mb: object store of a cluster that starts here; None for what the run will need.

    Raises:
        InputError: Ray is not installed, or from a call: there is no cluster at the address, or its
            nodes cannot hold the data.
        RuntimeError: from a call, if a client raised; names it.
        ChildProcessError: from a call, if a task's worker died three times, naming its clients, or
            no worker is left.
    """

    def __init__(
        self, workload: Workload, address: str | None, workers: int, store_mb: int | None
    ) -> None:
        at_least(1, workers=workers)
        if store_mb is not None:
            at_least(SMALLEST_STORE // 2**20, store_mb=store_mb)
        if workload.device.type != "cpu":
            raise InputError(
                "the workers of a Ray cluster compute on the CPU; use backend=in_process",
                "device",
                workload.device,
            )
        library()
        self._workload, self._address, self._count = workload, address, workers
        self._d = len(vector_of(workload.model))
        self._store = None if store_mb is None else store_mb * 2**20
        self._ray: Any = None
        self._folder: str | None = None  # of a cluster of this run's own
        self._joined_here = False
        self._held: list[Any] = []  # one reference, to the workload in the object store
        self._matrix = torch.empty(0, self._d)
        self._kernels = torch.backends.cpu.get_cpu_capability()

    def train(self, trainer: Trainer, tasks: Sequence[ClientTask]) -> Updates:
        """Updates in task order; their rows are overwritten by the next call."""
        # As many for every worker, each with its part of the long clients and of the short ones.
        count = min(len(tasks), TASKS_A_WORKER * self._workers())
        longest_first = sorted(range(len(tasks)), key=lambda row: -self._size(tasks[row]))
        pieces = [longest_first[piece::count] for piece in range(count)]
        return self._trained(trainer, tasks, pieces, None)

    def train_merged(
        self, trainer: Trainer, tasks: Sequence[ClientTask], merger: Merges
    ) -> Updates:
        """Updates in task order whose rows were merged by the workers that trained them."""
        n, size = len(tasks), merger.size
        blocks = [range(i, min(i + size, n)) for i in range(0, n, size)]
        blocks.sort(key=lambda rows: -sum(self._size(tasks[row]) for row in rows))
        updates = self._trained(trainer, tasks, blocks, merger)
        return replace(updates, in_a_row=size)

    def evaluate(self, models: Sequence[Tensor], split: str) -> list[Tensor]:
        """Logits of each model on every row of a part, in models' order."""
        ray, n = self._start(), len(self._workload.evaluation[split])
        # Whole batches, or other bits: a batch's rows are computed together.
        batches = math.ceil(n / EVALUATION_BATCH)
        at_once = EVALUATION_BATCH * math.ceil(batches / (2 * self._workers()))
        remote = ray.remote(num_cpus=1, max_retries=0)(ray_worker.evaluate)
        logits: list[Tensor] = []
        for model in models:
            held = [ray.put(model.detach().numpy())]
            pieces = [
                _Piece(
                    f"the evaluation on {split}",
                    partial(remote.remote, self._held, held, split, start, stop),
                    range(start, stop),
                )
                for start in range(0, n, at_once)
                for stop in [min(start + at_once, n)]
            ]
            whole: Tensor | None = None
            for piece, answer in self._answers(pieces):
                part = torch.from_numpy(np.array(answer))
                whole = part.new_empty(n, *part.shape[1:]) if whole is None else whole
                whole[piece.rows[0] : piece.rows[-1] + 1] = part
            logits.append(torch.empty(0) if whole is None else whole)
        return logits

    def close(self) -> None:
        """Leave the cluster; one that was started here ends, and its folder goes."""
        if self._ray is None:
            return
        self._held = []
        if self._joined_here:
            with quiet(), handlers_kept():
                self._ray.shutdown()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._ray, self._folder = None, None

    def _trained(
        self,
        trainer: Trainer,
        tasks: Sequence[ClientTask],
        blocks: Sequence[Sequence[int]],
        merger: Merges | None,
    ) -> Updates:
        n, width = len(tasks), row_size(sends_of(trainer), self._d)
        if not tasks:
            return Updates.of(torch.empty(0, width), (), ())
        ray = self._start()
        like = tasks[0]
        own_start = any(task.params is not like.params for task in tasks)
        work = [ray.put(Round(Parcel.of(trainer), like.params.numpy(), arrays_of(like.broadcast)))]
        remote = ray.remote(num_cpus=1, max_retries=0)(ray_worker.train)

        def piece_of(rows: Sequence[int]) -> _Piece:
            jobs = [_job(row, tasks[row], own_start) for row in rows]
            submit = partial(remote.remote, self._held, work, jobs, merger)
            return _Piece(_named([job.client_id for job in jobs]), submit, rows)

        matrix = self._rows(n if merger is None else math.ceil(n / merger.size), width)
        reports: list[Any] = [None] * n
        for piece, answer in self._answers([piece_of(rows) for rows in blocks]):
            self._say_other_kernels(answer)
            places = piece.rows if merger is None else [piece.rows[0] // merger.size]
            for place, row in zip(places, answer.matrix, strict=True):
                matrix[place] = ray_worker.tensor_of(row)
            for row, report, state in zip(piece.rows, answer.reports, answer.states, strict=True):
                reports[row] = replace(report, state=tensors_of(_copied(state)))
        return Updates.of(matrix, tasks, reports)

    def _answers(self, pieces: Sequence[_Piece]) -> Iterator[tuple[_Piece, Any]]:
        """Every piece with its answer, as they come in; those of the dead are tried again."""
        ray = self._start()
        lost = _losses(ray)
        tries = dict.fromkeys(map(id, pieces), 1)
        waiting = {piece.submit(): piece for piece in pieces}
        try:
            while waiting:
                done, _ = ray.wait(list(waiting), num_returns=1, timeout=PATIENCE)
                if not done:
                    refuse_an_empty_cluster(ray)
                    continue
                reference = done[0]
                piece = waiting.pop(reference)
                try:
                    answer = ray.get(reference)
                except lost as error:
                    reason = type(error).__name__
                    if tries[id(piece)] == TRIES:
                        raise ChildProcessError(
                            f"{TRIES} workers of the Ray cluster died at {piece.name} ({reason})"
                        ) from None
                    log.warning(
                        "backend: a worker died at %s (%s); it is tried again", piece.name, reason
                    )
                    tries[id(piece)] += 1
                    waiting[piece.submit()] = piece
                    continue
                if isinstance(answer, Exception):
                    raise answer
                yield piece, answer
        finally:
            for reference in waiting:
                with suppress(Exception):  # the cluster may be gone
                    ray.cancel(reference, force=True)

    def _rows(self, n: int, width: int) -> Tensor:
        if len(self._matrix) < n or self._matrix.shape[1] != width:
            self._matrix = self._matrix.new_empty(n, width)
        return self._matrix[:n]

    def _size(self, task: ClientTask) -> int:
        return len(self._workload.shards[task.examples_of])

    def _workers(self) -> int:
        """CPUs of the cluster, as it is now."""
        return max(1, cpus(self._start()))

    def _start(self) -> Any:
        """Ray, joined to the cluster that holds the workload."""
        if self._ray is not None:
            return self._ray
        data = _tensors(self._workload)
        bytes_of_data = sum(tensor.nbytes for tensor in data)
        ray = library()
        with quiet(), handlers_kept():
            self._joined_here = not ray.is_initialized()
            if self._joined_here:
                try:
                    self._join(ray, bytes_of_data)
                except BaseException as error:
                    self._ray = ray
                    self.close()
                    if not isinstance(error, Exception):
                        raise
                    reason = (str(error) or type(error).__name__).splitlines()[0]
                    raise InputError(
                        f"Ray cannot be started or joined: {reason}",
                        "backend.address",
                        self._address,
                    ) from error
        self._ray = ray
        refuse_small_stores(ray, bytes_of_data)
        self._held = [ray.put(Parcel.of(self._workload, data))]
        refuse_an_empty_cluster(ray)
        log.info("backend: %d workers on %d node(s) of Ray", self._workers(), len(alive(ray)))
        return ray

    def _join(self, ray: Any, bytes_of_data: int) -> None:
        if self._address is not None:
            join(ray, self._address)
            return
        # What is in flight: a round's models, and as many rows as tasks hold at a time.
        models = 4 * self._d * (8 + 8 * self._count)
        self._folder = short_folder()
        store = self._store or bytes_of_data + models + SMALLEST_STORE
        start(ray, self._folder, self._count, store)

    def _say_other_kernels(self, answer: Trained) -> None:
        if answer.kernels == self._kernels:
            return
        log.warning(
            "backend: a node computes with kernels for %s, this machine with %s: which node trains "
            "a client changes last bits, and the run is not repeatable to the bit",
            answer.kernels,
            self._kernels,
        )
        self._kernels = answer.kernels  # said once


def _job(row: int, task: ClientTask, own_start: bool) -> Job:
    start = task.params.numpy() if own_start else None
    state = arrays_of(task.state)
    return Job(row, task.client_id, task.round, task.seed, state, start, task.shard)


def _copied(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Out of the object store, which is to be free again."""
    return {name: array.copy() for name, array in arrays.items()}


def _tensors(workload: Workload) -> list[Tensor]:
    """The data that travel; what is mapped from a file is mapped by every worker."""
    splits: list[Split] = [workload.train, *workload.evaluation.values()]
    whole = {id(t): t for split in splits for t in split.tensors() if file_of(t) is None}
    return list(whole.values())


def _losses(ray: Any) -> tuple[type[BaseException], ...]:
    """What Ray raises where a worker or a node is gone, and what it computed with it."""
    known = ray.exceptions
    return (
        known.WorkerCrashedError,
        known.NodeDiedError,
        known.ObjectLostError,
        known.OutOfMemoryError,
    )


def _named(clients: Sequence[int]) -> str:
    """Some clients, in few words.

    >>> _named([3]), _named([3, 1]), _named(range(64))
    ('client 3', 'clients 3, 1', 'clients 0, 1, 2, 3, 4 and 59 more')
    """
    if len(clients) == 1:
        return f"client {clients[0]}"
    more = f" and {len(clients) - 5} more" if len(clients) > 5 else ""
    return f"clients {', '.join(map(str, clients[:5]))}{more}"
