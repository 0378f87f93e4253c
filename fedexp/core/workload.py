"""What a worker needs to train any client and to evaluate any model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from fedexp.core.examples import Split
from fedexp.core.normalise import Normalisation
from fedexp.core.protocols import Task

EVALUATION_BATCH = 200  # images; large enough to fill the processor, small enough for its cache
EVALUATED_ON_A_GPU = 2**23  # numbers of examples at once there: 32 MB, and what layers make of it


def evaluation_batch(device: torch.device, numbers: int) -> int:
    """Examples of so many numbers each that are evaluated at once."""
    return EVALUATION_BATCH if device.type == "cpu" else max(1, EVALUATED_ON_A_GPU // numbers)


@dataclass(frozen=True)
class Workload:
    """What a worker needs to train any client and to evaluate any model; it never changes."""

    model: torch.nn.Module
    train: Split
    shards: Sequence[np.ndarray]
    evaluation: Mapping[str, Split]
    cohort_size: int  # expected clients a round
    device: torch.device
    task: Task  # what labels mean
    normalisation: Normalisation = field(default_factory=Normalisation.none)
