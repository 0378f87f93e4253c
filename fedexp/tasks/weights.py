"""How much an example counts for, by its class: against classes that some clients hardly have.

    none       every example alike
    balanced   n / (K n_c): n the client's own examples, n_c those of the class, K its classes
    a list     of the config's, for every client alike

Balanced weights are scikit-learn's (`class_weight="balanced"`; King and Zeng, "Logistic Regression
in Rare Events Data", 2001): their mean over a client's examples is 1. They are counted by each
client from its own labels, so no count leaves it. But then the loss of an example depends on how
many others there are, and no bound on one example's gradient hides that: DP-SGD refuses them, and
takes a list.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from fedexp.core.checks import InputError, non_negative, one_of

ClassWeights: TypeAlias = Literal["none", "balanced"] | Sequence[float]


def stated(class_weights: ClassWeights) -> tuple[float, ...]:
    """The weights of a list; empty for a word.

    Raises:
        InputError: it is another word, or holds a number that is no weight.
    """
    if isinstance(class_weights, str):
        one_of(("none", "balanced"), class_weights=class_weights)
        return ()
    for weight in class_weights:
        non_negative(class_weights=weight)
    weights = tuple(float(weight) for weight in class_weights)
    if not any(weights):
        raise InputError("must have a weight above 0", "class_weights", list(class_weights))
    return weights


def check_number(weights: Sequence[float], num_classes: int) -> None:
    """Raise InputError unless there is a weight for each class, or none at all."""
    if weights and len(weights) != num_classes:
        reason = f"must have one weight for each of {num_classes} classes or labels"
        raise InputError(reason, "task.class_weights", list(weights))


def balanced(counts: Tensor) -> Tensor:
    """The weight of an example of each class: of those that are there; 1 for the others.

    Args:
        counts: examples by class, `[classes, ...]`; each column by itself.

    >>> [round(x, 3) for x in balanced(torch.tensor([6, 2, 0])).tolist()]
    [0.667, 2.0, 1.0]
    """
    there = counts > 0
    weights = counts.sum(dim=0) / (there.sum(dim=0) * counts.clamp_min(1))
    return torch.where(there, weights, 1.0)
