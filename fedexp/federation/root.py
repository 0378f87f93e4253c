"""The server's own update, for rules that compare the clients' rows with one.

The server trains on a few examples of its own as a client would, from the model of the round, but
needs no protection from itself: what a privacy mechanism does to the clients' steps is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from torch import Tensor

from fedexp.core.protocols import Algorithm, Backend, Trainer
from fedexp.core.types import ClientTask


@final
@dataclass(frozen=True)
class NoRootData:
    """The server holds no examples."""

    def __call__(
        self, backend: Backend, algorithm: Algorithm, task_of: Callable[[int], ClientTask]
    ) -> None:
        """No update."""


@final
@dataclass(frozen=True)
class RootData:
    """The server trains on a shard of its own.

    Args:
        client: the shard's number, behind the clients'.
        trainer: as the clients' without what protects theirs.
    """

    client: int
    trainer: Trainer

    def __call__(
        self, backend: Backend, algorithm: Algorithm, task_of: Callable[[int], ClientTask]
    ) -> Tensor:
        """The update `[D]`, in memory of its own; the server keeps nothing between rounds."""
        trained = backend.train(algorithm.local(self.trainer), [task_of(self.client)])
        return trained.matrix[0].clone()
