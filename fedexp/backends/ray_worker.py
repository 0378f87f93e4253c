"""What a worker of a Ray cluster does: its desk is set once, then it trains and evaluates.

Ray hands every task the references of what is the same for all of them (the workload, a round's
model) and a worker looks each one up once. What lies in a node's object store is read where it
lies: arrays are views of it, which nobody may write to.
"""

from __future__ import annotations

import io
import pickle
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

import fedexp
from fedexp.backends.workspace import Workspace, sends_of
from fedexp.core.checks import InputError
from fedexp.core.library_warnings import into_the_log
from fedexp.core.own_code import own_code_named, to_be_sent
from fedexp.core.protocols import Merges, Trainer
from fedexp.core.types import ClientReport, ClientTask, State, Updates, row_size

Arrays = Mapping[str, np.ndarray]
VERSIONS = f"fedexp {fedexp.__version__} and torch {torch.__version__}"


@dataclass(frozen=True)
class Parcel:
    """An object as bytes, with its large tensors beside them as arrays, which are not copied."""

    content: bytes
    arrays: tuple[np.ndarray, ...]
    versions: str = VERSIONS

    @classmethod
    def of(cls, content: object, beside: Sequence[Tensor] = ()) -> Parcel:
        """The object with the tensors in `beside`, which are parts of it, as arrays."""
        places = {id(tensor): place for place, tensor in enumerate(beside)}
        stream = io.BytesIO()
        pickler = pickle.Pickler(stream)
        pickler.persistent_id = lambda part: places.get(id(part))  # type: ignore[method-assign]
        pickler.dump(content)
        return cls(stream.getvalue(), tuple(tensor.numpy() for tensor in beside))

    def opened(self) -> Any:
        """The object again.

        Raises:
            InputError: it was made by other versions, or of a module that is not on this node.
        """
        if self.versions != VERSIONS:
            raise InputError(
                f"a node has {VERSIONS}, and this process {self.versions}: the bits would differ",
                "backend",
                "ray",
            )
        tensors = [tensor_of(array) for array in self.arrays]
        unpickler = pickle.Unpickler(io.BytesIO(self.content))
        unpickler.persistent_load = lambda place: tensors[place]  # type: ignore[method-assign]
        try:
            return unpickler.load()
        except ModuleNotFoundError as error:
            raise InputError(
                f"the workers of the cluster cannot import {error.name}: start fedexp in the "
                "folder that holds it, or install it on every node",
                "backend",
                "ray",
            ) from None


@dataclass(frozen=True)
class Round:
    """What is the same for all clients of a round."""

    trainer: Parcel
    params: np.ndarray  # [d]
    broadcast: Arrays


@dataclass(frozen=True)
class Job:
    """What is a client's own in a round."""

    row: int  # of the cohort
    client_id: int
    round: int
    seed: int
    state: Arrays
    start: np.ndarray | None  # [d] where its model is not the round's
    shard: int | None  # whose examples; None: the client's own


@dataclass(frozen=True)
class Trained:
    """What clients of one task of Ray's sent."""

    matrix: np.ndarray  # [clients, D], or [1, D] merged
    reports: tuple[ClientReport, ...]
    states: tuple[Arrays, ...]  # what they keep
    kernels: str  # of the processor that computed it


def train(
    workload: Sequence[Any], work: Sequence[Any], jobs: Sequence[Job], merger: Merges | None
) -> Trained | Exception:
    """Train some clients, one after the other, or say what went wrong.

    Args:
        workload: one reference, to the workload in its parcel.
        work: one reference, to the round.
        jobs: the clients.
        merger: what makes one row of theirs; None: all rows are wanted.
    """
    at = "the start"
    try:
        with into_the_log(), own_code_named():
            desk = _looked_up("workload", workload, _desk)
            trainer, params, broadcast = _looked_up("round", work, _round)
            matrix = torch.empty(len(jobs), row_size(sends_of(trainer), len(params)))
            tasks, reports = [], []
            for job, row in zip(jobs, matrix, strict=True):
                at = f"client {job.client_id}"
                start = params if job.start is None else tensor_of(job.start)
                state = tensors_of(job.state)
                task = ClientTask(
                    job.client_id, start, job.round, job.seed, state, broadcast, job.shard
                )
                reports.append(desk.train(trainer, task, row))
                tasks.append(task)
            if merger is not None:
                matrix = merger.merged(Updates.of(matrix, tasks, reports)).matrix
        return Trained(
            matrix=matrix.numpy(),
            reports=tuple(replace(report, sent={}, state={}) for report in reports),
            states=tuple(arrays_of(report.state) for report in reports),
            kernels=torch.backends.cpu.get_cpu_capability(),
        )
    except InputError as error:
        return to_be_sent(error, at)
    except Exception:
        return RuntimeError(f"{at} failed in a worker process:\n{traceback.format_exc()}")


def evaluate(
    workload: Sequence[Any], model: Sequence[Any], split: str, start: int, stop: int
) -> np.ndarray | Exception:
    """Logits `[stop - start, num_classes]` of a model on rows of a part, or what went wrong.

    Args:
        workload: one reference, to the workload in its parcel.
        model: one reference, to the model `[d]`.
        split: the part's name.
        start: its first row that is asked for.
        stop: the row behind the last.
    """
    try:
        with into_the_log(), own_code_named():
            desk = _looked_up("workload", workload, _desk)
            logits: np.ndarray = desk.evaluate(_got(model), split, start, stop).numpy()
        return logits
    except InputError as error:
        return to_be_sent(error, f"the evaluation on {split}")
    except Exception:
        words = f"the evaluation on {split} failed in a worker process:\n{traceback.format_exc()}"
        return RuntimeError(words)


def tensor_of(array: np.ndarray) -> Tensor:
    """A view of an array, which may be one that nobody may write to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(array)


def tensors_of(arrays: Arrays) -> State:
    """Named tensors, as views."""
    return {name: tensor_of(array) for name, array in arrays.items()}


def arrays_of(state: State) -> Arrays:
    """Named arrays, as views."""
    return {name: tensor.numpy() for name, tensor in state.items()}


_known: dict[Literal["workload", "round"], tuple[Any, Any]] = {}
"""The latest reference of each kind, and what was made of what it refers to."""


def _looked_up(
    kind: Literal["workload", "round"], held: Sequence[Any], make: Callable[[Any], Any]
) -> Any:
    """What `make` made of what is referred to, now or for an earlier task."""
    if kind not in _known or _known[kind][0] != held[0]:
        _known.pop(kind, None)  # first: two of them may not fit
        _known[kind] = held[0], make(_found(held[0]))
    return _known[kind][1]


def _got(held: Sequence[Any]) -> Tensor:
    return tensor_of(_found(held[0]))


def _found(reference: Any) -> Any:
    import ray

    return ray.get(reference)


def _desk(parcel: Parcel) -> Workspace:
    torch.set_num_threads(1)
    return Workspace(parcel.opened())


def _round(work: Round) -> tuple[Trainer, Tensor, State]:
    return work.trainer.opened(), tensor_of(work.params), tensors_of(work.broadcast)
