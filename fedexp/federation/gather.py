"""How what the clients trained is brought together: row by row, or merged where it was trained.

Both give the same bits to the channel; only the memory differs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import final

from fedexp.core.capabilities import does_nothing
from fedexp.core.checks import InputError
from fedexp.core.memory import available_memory
from fedexp.core.protocols import Backend, Channel, Merges, Trainer, TrainsMerged
from fedexp.core.types import ClientTask, Updates

Train = Callable[[Trainer, Sequence[ClientTask]], Updates]


@final
@dataclass(frozen=True)
class Rows:
    """A row a client."""

    def __call__(self, backend: Backend) -> Train:
        """Trains to the updates `[n, D]`."""
        return backend.train

    def rows(self, n: int) -> int:
        """One of each."""
        return n


@final
@dataclass(frozen=True)
class Merged:
    """The channel's rows, made by the workers.

    Args:
        merger: the channel.
    """

    merger: Merges

    def __call__(self, backend: Backend) -> Train:
        """Trains to updates with rows `[ceil(n / size), D]`."""
        assert isinstance(backend, TrainsMerged)
        return partial(backend.train_merged, merger=self.merger)

    def rows(self, n: int) -> int:
        """One a block."""
        return -(-n // self.merger.size)


def gather_of(backend: Backend, channel: Channel, readers: Sequence[object]) -> Rows | Merged:
    """Merged where the channel merges, the backend can, and no one of `readers` reads a row first.

    Args:
        backend: what trains.
        channel: what the rows go through.
        readers: the parts between the two: attack, worker momentum, what clients do for privacy.
    """
    if (
        isinstance(channel, Merges)
        and isinstance(backend, TrainsMerged)
        and all(map(does_nothing, readers))
    ):
        return Merged(channel)
    return Rows()


def refuse_too_many_rows(gather: Rows | Merged, n: int, d: int) -> None:
    """Raise InputError where the rows of a cohort do not fit into the memory that is free.

    Args:
        gather: of the run.
        n: clients of a cohort.
        d: numbers a client sends.
    """
    needed, there = 4 * d * gather.rows(n), available_memory()
    if there is not None and needed > there:
        raise InputError(
            f"{gather.rows(n):,} rows of {d:,} numbers need {needed / 1e9:,.1f} GB, and "
            f"{there / 1e9:,.1f} GB are free; channel=block_means with backend=in_process or ray "
            "holds a row for 64 clients (attack=none, privacy=none or dp_sgd, and a rule that goes "
            "by the mean)",
            "cohort_size",
            n,
        )
