"""Who holds what: the clients' shards of the training part, and their own patients elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from fedexp.core.checks import InputError
from fedexp.core.examples import Split
from fedexp.core.shards import are_listed, partition_hash
from fedexp.core.text import called


class CountsLabels(Protocol):
    """What of a task a partition needs to be described."""

    def label_counts(self, y: Tensor, num_classes: int) -> np.ndarray:
        """How many examples have each label: `[num_classes]` int64."""


@dataclass(frozen=True)
class OwnPart:
    """Each client's own patients of a part that is not trained on."""

    part: Split  # as the clients see it: their own scanner is in the pixels
    rows: tuple[np.ndarray, ...]  # [n_clients] int64 rows of `part`, sorted; a client may have none


Own = Callable[[Split, str], OwnPart]
"""From a part and its name (validation, test) to each client's own patients of it."""


@dataclass(frozen=True)
class Partition:
    """Who holds what: `shards[k]` are client k's rows of `train`, sorted int64 indices.

    They are a tuple, or of very many clients a sequence that computes them
    (`fedexp.core.shards.Computed`), which is not listed anywhere. The shards are disjoint and none
    is empty. `train` is the training part as the clients see it;
    most partitions hand it on unchanged, `feature` returns one in which every client's rows went
    through that client's scanner.
    """

    train: Split
    shards: Sequence[np.ndarray]
    changed: bool = False  # whether the clients see other examples than there were to assign
    names: tuple[str, ...] = ()  # of the clients; empty: they are numbered
    own: Own | None = None  # None: nobody's own, and drawn in a client's class mix for it

    @cached_property
    def hash(self) -> str:
        """SHA-256, in hex, of who holds which rows (see `fedexp.core.shards.partition_hash`)."""
        return partition_hash(self.shards)

    def label_counts(self, num_classes: int, task: CountsLabels) -> np.ndarray:
        """How many examples of each class each client holds: `[n_clients, num_classes]` int64.

        `[0, num_classes]` where clients are too many to be listed. Raises InputError if the task
        counts another number of classes.
        """
        if not are_listed(self.shards):
            return np.empty((0, num_classes), dtype=np.int64)
        labels = (self.train.y[torch.from_numpy(shard)] for shard in self.shards)
        counts = [np.asarray(task.label_counts(y, num_classes)) for y in labels]
        if wrong := [c.shape for c in counts if c.shape != (num_classes,)]:
            reason = f"must count the labels of all {num_classes} classes, and gave {wrong[0]}"
            raise InputError(f"{reason} (label_counts)", "task", called(task))
        return np.stack(counts)
