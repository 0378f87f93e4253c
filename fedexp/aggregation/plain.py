"""Rules on a plain `[n, d]` array, without a federation around them.

Two kinds of rules are taken: those of a run, which fit `fedexp.core.protocols.Aggregator`, and
functions from rows `[n, d]` to a step `[d]`, as one writes them in a notebook.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from fedexp.core.protocols import Aggregator
from fedexp.core.rng import generator
from fedexp.core.types import State, Updates

Rows = TypeVar("Rows", Tensor, np.ndarray)


def aggregate(
    rule: Aggregator | Callable[[Any], Any],
    rows: Rows,
    *,
    examples: Sequence[float] | None = None,
    reference: Rows | None = None,
    state: State | None = None,
    seed: int = 0,
) -> Rows:
    """What a rule makes of the clients' rows: `[n, d]` to `[d]`, in the kind that was given.

    Args:
        rule: of a run, or a function of the rows.
        rows: `[n, d]`, one row a client, local minus global model; computed with in float32 by the
            rules of a run.
        examples: `[n]`, how many each client holds, for rules that weigh; None: equally many.
        reference: `[d]`, the server's own update, for rules that ask for one.
        state: of the rule after earlier rounds; None: its first.
        seed: of the rule's random choices.

    Raises:
        InputError: the rule cannot work with so many rows.

    >>> from fedexp.aggregation.median import Median
    >>> aggregate(Median(assumed_malicious=1), np.array([[0.0], [1.0], [50.0]], dtype=np.float32))
    array([1.], dtype=float32)
    """
    whole: Any = rule
    if not hasattr(rule, "init"):
        step = whole(rows)
        return step if isinstance(step, type(rows)) else _like(rows, torch.as_tensor(step))
    matrix = torch.as_tensor(rows, dtype=torch.float32)
    n = len(matrix)
    counts = torch.ones(n) if examples is None else torch.as_tensor(examples)
    updates = Updates(
        matrix,
        tuple(range(n)),
        counts.to(torch.float64),
        reference=None if reference is None else torch.as_tensor(reference, dtype=torch.float32),
    )
    before = whole.init(matrix.shape[1]) if state is None else state
    return _like(rows, whole(updates, before, generator(seed, "aggregate"))[0])


def _like(rows: Rows, step: Tensor) -> Rows:
    return step if isinstance(rows, Tensor) else step.numpy()
