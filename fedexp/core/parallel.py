"""Independent pieces of work over the cores; the answers do not depend on how many there are."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import torch

from fedexp.core.cores import available_cores
from fedexp.core.devices import repeatable

WORTH_A_POOL = 5.0  # seconds of work, about what it takes to start one

Item = TypeVar("Item")
Answer = TypeVar("Answer")


def in_parallel(
    function: Callable[[Item], Answer],
    items: Sequence[Item],
    done: Callable[[], None],
    most: int | None = None,
) -> list[Answer]:
    """`[function(item) for item in items]`; calls `done` after each.

    In a process that is itself a worker, such as a sweep's job, one after the other.

    Args:
        function: at module level, so that it can be sent to a process.
        items: each with all that it needs, its random seed included.
        done: told after every item.
        most: workers; None: as many as there are cores.
    """
    from joblib import Parallel, delayed

    finished: list[Answer] = []

    def keep(answers: Iterable[Answer]) -> None:
        for answer in answers:
            finished.append(answer)
            done()

    started = time.perf_counter()
    keep(_on_one_thread(function, item) for item in items[:1])
    rest, seconds = items[1:], time.perf_counter() - started
    workers = min(most or available_cores(), len(rest))
    if multiprocessing.parent_process():
        workers = 1
    if workers <= 1 or seconds * len(rest) < WORTH_A_POOL:
        keep(_on_one_thread(function, item) for item in rest)
    else:
        pool = Parallel(n_jobs=workers, return_as="generator")
        keep(pool(delayed(_on_one_thread)(function, item) for item in rest))
    return finished


def _on_one_thread(function: Callable[[Item], Answer], item: Item) -> Answer:
    torch.set_num_threads(1)
    repeatable()
    return function(item)
