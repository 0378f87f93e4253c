"""What attacks on data draw: which of a client's examples, and which wrong labels."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fedexp.core.checks import InputError
from fedexp.core.examples import Split


def drawn_rows(n: int, fraction: float, rng: np.random.Generator) -> Tensor:
    """A share of the numbers 0..n-1, to the nearest whole number, without repeats: int64."""
    return torch.from_numpy(rng.choice(n, round(fraction * n), replace=False))


def other_classes(y: Tensor, num_classes: int, rng: np.random.Generator) -> Tensor:
    """For every label `[n]` another one, uniformly among the num_classes - 1 that are wrong."""
    offsets = torch.from_numpy(rng.integers(1, num_classes, len(y)))
    return (y + offsets) % num_classes


def refuse_several_labels(data: Split, attack: str) -> None:
    """Raise InputError unless every example has one class, which a wrong one can replace."""
    if not data.one_class:
        raise InputError(
            "replaces an example's class by another, and these examples have any number of "
            "labels; use an attack on updates, such as sign_flip",
            "attack",
            attack,
        )
