"""What all processes of a pool see, in shared memory, once: data, models, rows and states.

torch shares memory through file descriptors whose names are unlinked at once: when the processes
are gone, however they went, nothing stays behind.
"""

from __future__ import annotations

import ctypes
import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fedexp.backends.workspace import Layout
from fedexp.core.checks import InputError
from fedexp.core.mapping import file_of
from fedexp.core.types import Split, State, is_mapped
from fedexp.core.workload import Workload

SHARED_MEMORY = "/dev/shm"


@dataclass(frozen=True)
class Needs:
    """What a board must hold; equal but for `rows`, or the pool starts again."""

    rows: int  # clients
    width: int  # D
    state: Layout  # of one client
    broadcast: Layout

    def met_by(self, other: Needs) -> bool:
        """Whether a board made for `other` will do: for the bits a row must not be any wider."""
        return self.rows <= other.rows and replace(self, rows=other.rows) == other

    def shapes(self, workers: int, d: int) -> Layout:
        """The tensors of a board for so many workers and models of `d` numbers."""
        return {
            "models": ((workers, d), torch.float32),
            "matrix": ((self.rows, self.width), torch.float32),
            **{f"broadcast.{k}": layout for k, layout in self.broadcast.items()},
            **{f"state.{k}": ((self.rows, *shape), t) for k, (shape, t) in self.state.items()},
        }


@dataclass(frozen=True)
class Board:
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

    @classmethod
    def made_for(cls, needs: Needs, workers: int, d: int, context: Any) -> Board:
        """A board of zeros, for processes that `context` starts."""
        shapes = needs.shapes(workers, d)
        # Zeros: pages are touched here, once.
        made = {k: torch.zeros(shape, dtype=t).share_memory_() for k, (shape, t) in shapes.items()}
        return cls(
            models=made["models"],
            broadcast={name: made[f"broadcast.{name}"] for name in needs.broadcast},
            matrix=made["matrix"],
            state={name: made[f"state.{name}"] for name in needs.state},
            next_job=context.Value(ctypes.c_long, 0),
            at_work=torch.zeros(workers, dtype=torch.int64).share_memory_(),
        )


class TooLittleSharedMemory(InputError):
    """What all workers see would not fit into the shared memory that is free."""


def write(state: State, places: State) -> None:
    """Write named tensors to where those of the same names lie."""
    for name, tensor in state.items():
        places[name].copy_(tensor)


def shared(workload: Workload) -> Workload:
    """The workload with its data in shared memory, once, in the size they have when stored."""
    evaluation = {name: split.shared() for name, split in workload.evaluation.items()}
    return replace(workload, train=workload.train.shared(), evaluation=evaluation)


def refuse_small_shared_memory(workload: Workload, board: Layout) -> None:
    """Raise TooLittleSharedMemory where the data and a board would not fit."""
    # Writing past the end of /dev/shm kills the process with SIGBUS; ask beforehand.
    if not os.path.isdir(SHARED_MEMORY):
        return
    moved = (t for t in _tensors(workload) if file_of(t) is None)
    to_come = (t for t in moved if is_mapped(t) or not bool(t.is_shared()))
    needed = sum(map(_bytes, board.values())) + sum(t.nbytes for t in to_come)
    free = shutil.disk_usage(SHARED_MEMORY).free
    if needed > free:
        raise TooLittleSharedMemory(
            f"needs {needed / 1e6:.0f} MB of shared memory and {SHARED_MEMORY} has "
            f"{free / 1e6:.0f} MB free; use backend=in_process",
            "backend",
            "process_pool",
        )


def _tensors(workload: Workload) -> list[Tensor]:
    splits: list[Split] = [workload.train, *workload.evaluation.values()]
    return [tensor for split in splits for tensor in split.tensors()]


def _bytes(layout: tuple[tuple[int, ...], torch.dtype]) -> int:
    return math.prod(layout[0]) * layout[1].itemsize
