"""Whether what one client sends comes into what becomes of another's row, tried on the parts.

A worker momentum sees one client alone, and so does a validation where noise is on the sum of rows
(`Privacy.releases_every_round`). One that keeps something in itself lets each client's row into the
next one's: noise that is for one row a client would not cover that, and a resumed run would not
have it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fedexp.core.capabilities import does_nothing
from fedexp.core.checks import InputError
from fedexp.core.protection import Combination
from fedexp.core.rng import lent, torch_generator
from fedexp.core.text import called
from fedexp.core.types import Updates

BEFORE = 5  # rows of the other client
LENGTHS = (0.1, 10.0)  # of them, beside a row of the client that is looked at
WAYS_OUT = {
    "worker_momentum": "return what a client keeps: it is handed in again with its next row",
    "update_validation": "noise on a sum is for rows that are judged each by itself",
}


def refuse_memory_of_others(parts: Combination, d: int, row: int, validated_alone: bool) -> None:
    """Raise InputError for a part whose answer to a client depends on whom it was shown before.

    Args:
        parts: of the run, left as they are.
        d: numbers in a model.
        row: numbers in what a client sends.
        validated_alone: whether the validation is shown one row at a time.
    """
    momentum, validation = parts.worker_momentum, parts.update_validation
    if not does_nothing(momentum):
        _try("worker_momentum", momentum, row, lambda part, one: part(one, [{}], d)[0].matrix)
    if validated_alone:
        _try("update_validation", validation, row, lambda part, one: _heard(part(one, row)))


def _heard(complaints: Any) -> Tensor:
    return torch.tensor([bool(complaint) for complaint in complaints])


def _try(group: str, part: Any, row: int, answer: Callable[[Any, Updates], Tensor]) -> None:
    draws = torch.randn(2, 1, row, generator=torch_generator(0))
    mine, other = _of(0, draws[0]), draws[1]

    def answered(before: list[Updates]) -> Tensor:
        tried = copy.deepcopy(part)
        for one in [*before, mine]:
            with lent(0, torch.device("cpu")):
                made = answer(tried, one)
        return made.clone()

    try:
        alone = answered([])
        after = [answered([_of(1, length * other)] * BEFORE) for length in LENGTHS]
    except Exception:  # of a part of somebody's own: said by name in the first round
        return
    if not all(torch.equal(alone, made) for made in after):
        raise InputError(
            "keeps something of one client in itself, and another client's row depends on it; "
            f"{WAYS_OUT[group]}",
            group,
            called(part),
        )


def _of(client: int, matrix: Tensor) -> Updates:
    return Updates(matrix, (client,), torch.ones(1, dtype=torch.float64))
