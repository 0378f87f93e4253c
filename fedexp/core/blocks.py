"""Blocks of clients that are trained together, and the trainers that can do so.

A step of a block is one step of every client in it. Clients differ in how many steps they make:
they stand in the order of their sizes, the largest first, so that those who still train are always
the first ones of the block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, final, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from fedexp.core.examples import Split
from fedexp.core.stacked import StackedModel
from fedexp.core.types import Adjust, ClientReport, ClientTask


@final
@dataclass(frozen=True)
class Block:
    """Clients that are trained together, no larger one after a smaller one.

    `model` holds every client's start, and is trained in place.
    """

    model: StackedModel  # of k = len(tasks) clients
    data: Split  # of all clients, on the model's device
    shards: tuple[np.ndarray, ...]  # [k] each one's rows of it
    labels: tuple[Tensor, ...]  # [k] their labels, on the CPU, where batches are drawn
    tasks: tuple[ClientTask, ...]

    def __len__(self) -> int:
        return len(self.tasks)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Examples of each client."""
        return tuple(map(len, self.shards))

    @cached_property
    def starts(self) -> Tensor:
        """What the clients start from: `[d]` where that is the same for all, else `[k, d]`."""
        first = self.tasks[0].params
        if all(task.params is first for task in self.tasks):
            return first.to(self.model.device)
        return torch.stack([task.params.to(self.model.device) for task in self.tasks])


def unadjusted(gradients: Sequence[Tensor]) -> Sequence[Tensor]:
    """The gradients as they are."""
    return gradients


@runtime_checkable
class TrainsBlocks(Protocol):
    """A trainer that can train a block of clients together."""

    def why_no_blocks(self) -> str:
        """Why it cannot after all, in words; "" if it can."""

    def numbers_in_a_block(self, n: int, d: int, kept: int) -> int:
        """About how many numbers a client takes on the device.

        Args:
            n: its examples.
            d: numbers in the model.
            kept: numbers that a pass keeps for one example.
        """

    def train_block(self, block: Block, adjust: Adjust = unadjusted) -> list[ClientReport]:
        """Train every client's model in place, as in a call of the trainer for each one.

        Args:
            block: the clients.
            adjust: what every step's gradients `[k, *shape]` go through.

        Returns:
            A report for each client. Its tensors lie on the block's device, and so may its metrics,
            as tensors `[]`: to read a number there would be to wait for the device.
        """


def why_no_blocks(trainer: object) -> str:
    """Why a trainer cannot train blocks, in words; "" if it can."""
    if not isinstance(trainer, TrainsBlocks):
        return "the training goes one client at a time"
    return trainer.why_no_blocks()
