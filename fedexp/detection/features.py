"""What a scorer sees of an update: how the row lies to its round, to the past, and to its sender.

Updates shrink and turn as training goes on, and near the end honest clients that share a model
hardly agree at all; a threshold on raw numbers that fits round 5 flags everybody in round 30. So
every number is relative to the median of its round, which fewer than half of the rows cannot move
far. With u_k the sketch of row k at length 1, four relations:

    length     ||delta_k||
    agreement  <u_k, c>       c: the median of every coordinate of the round's u
    direction  <u_k, g>       g: where accepted rows of past rounds pointed, all clients together
    habit      <u_k, h_k>     h_k: where accepted rows of this client pointed; 0 if there are none

each divided by its round's median and then turned into robust deviations from the round:
(x - median x) / max(1.4826 MAD, RESOLUTION). Lengths, not their logarithms: harm grows with length,
and honest clients with few examples send ever shorter updates once they have learned these. Then
the vector itself: what is left of u_k outside the plane of c and g, relative to its median length,
sketched to RESIDUAL numbers.

g and h are averages that forget: g <- DECAY g + (1 - DECAY) mean u. A row is accepted if it was not
flagged and does not point against g, so that an adversary does not become a habit. Of these,
`habit` tells most: measured on MNIST, an honest client's update has a cosine of about 0.6 with its
own last one, while two honest clients' updates are orthogonal from about round 20 on, where a
flipped sign shows in nothing but the past. It needs the client to have been honest, and accepted,
before. With one or two rows a round there is nothing to compare.

Related: FLDetector (Zhang, Cao, Jia and Gong, KDD 2022) compares a client with its own past;
the median and MAD are Rousseeuw and Croux, "Alternatives to the Median Absolute Deviation", JASA
1993, section 1. The choice among these numbers was made by experiment.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fedexp.core.types import State
from fedexp.detection.sketch import count_sketch

RELATIONS = 4
RESIDUAL = 32
RESOLUTION = 0.1
"""Deviations of less than this share of the median are not told apart: where the clients agree to
a per cent, two per cent are no sign of malice."""
DECAY = 0.8
_LEAST = 1e-30
_MOST = 1e6  # deviations: beyond it float32 would run out of digits


class Short(NamedTuple):
    """The rows of a round, made short; on the CPU."""

    units: Tensor  # [n, k] float64, sketches at length 1; a row without direction is 0
    lengths: Tensor  # [n] float64, of the rows, not of their sketches


def shorten(matrix: Tensor, size: int | None, seed: int) -> Short:
    """Sketches and lengths of the rows `[n, d]`; `size` None: no sketch, 0: lengths only."""
    # One row at a time: a float64 copy of all would be larger than what was received.
    norms = [torch.linalg.vector_norm(row, dtype=torch.float64) for row in matrix]
    lengths = torch.stack(norms).cpu() if norms else torch.zeros(0, dtype=torch.float64)
    if size is None:
        sketch = matrix.double()
    elif size == 0:
        sketch = matrix[:, :0].double()
    else:
        sketch = count_sketch(matrix, size, seed)
    return Short(_unit(sketch.cpu()).nan_to_num(0, 0, 0), lengths)


def empty_memory(k: int) -> State:
    """Nothing accepted yet, for sketches of k numbers."""
    return {
        "direction": torch.zeros(k),
        "clients": torch.zeros(0, dtype=torch.int64),
        "habits": torch.zeros(0, k),
    }


def round_features(short: Short, clients: Sequence[int] | None, memory: State) -> Tensor:
    """The features of one round's rows: `[n, RELATIONS + RESIDUAL]` float32.

    Args:
        short: the rows.
        clients: who sent them; None: unknown, then nobody has a habit.
        memory: of the rounds before, see `remember`.
    """
    units, lengths = short
    n, k = units.shape
    if n == 0:
        return torch.zeros(0, RELATIONS + RESIDUAL)
    direction = memory["direction"].double()
    centre = units.median(dim=0).values
    habits, known = _habits(clients, memory, n, k)
    everybody = torch.ones(n, dtype=torch.bool)
    # Two unrelated sketches have a cosine of about 1 / sqrt(k): a smaller median says nothing.
    noise = 1 / math.sqrt(max(k, 1))
    relations = [
        _relative(lengths, everybody, _LEAST),
        _relative(units @ _unit(centre), everybody, noise),
        _relative(units @ _unit(direction), everybody & bool(direction.any()), noise),
        _relative((units * _unit(habits)).sum(dim=1), known, noise),
    ]
    related = torch.stack(relations, dim=1).clamp(-_MOST, _MOST)
    return torch.cat([related, _rest(units, centre, direction)], dim=1).float()


def remember(
    memory: State, short: Short, clients: Sequence[int] | None, accepted: Tensor
) -> dict[str, Tensor]:
    """The memory after a round, of which the rows `accepted` `[n]` bool count.

    It grows with the clients that were seen: a sketch each.
    """
    units = short.units.float()
    direction = memory["direction"]
    kept = accepted & (units.norm(dim=1) > 0)
    if direction.any():
        kept &= units @ direction > 0
    if not kept.any():
        return dict(memory)
    mean = units[kept].mean(dim=0)
    after = {**memory, "direction": DECAY * direction + (1 - DECAY) * mean}
    if clients is None:
        return after
    habits = dict(zip(memory["clients"].tolist(), memory["habits"], strict=True))
    for row, client in zip(kept.nonzero().flatten().tolist(), _chosen(clients, kept), strict=True):
        if client >= 0:  # a mixture of clients has no habit
            before = habits.get(client, torch.zeros_like(direction))
            habits[client] = DECAY * before + (1 - DECAY) * units[row]
    if habits:
        names = sorted(habits)
        after["clients"] = torch.tensor(names, dtype=torch.int64)
        after["habits"] = torch.stack([habits[name] for name in names])
    return after


def standardisation(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of every feature of `[m, p]`; what is left of the vector counts as one.

    Its RESIDUAL numbers get a larger divisor, so that together they weigh as much as a relation.
    """
    deviation = features.std(dim=0, correction=0).clamp_min(1e-3)
    deviation[RELATIONS:] *= math.sqrt(RESIDUAL)
    return features.mean(dim=0), deviation


def _habits(clients: Sequence[int] | None, memory: State, n: int, k: int) -> tuple[Tensor, Tensor]:
    """Each row's habit `[n, k]`, and whether it has one `[n]` bool."""
    habits, known = torch.zeros(n, k, dtype=torch.float64), torch.zeros(n, dtype=torch.bool)
    places = {client: i for i, client in enumerate(memory["clients"].tolist())}
    for row, client in enumerate(clients or ()):
        if client in places:
            habits[row], known[row] = memory["habits"][places[client]].double(), True
    return habits, known


def _chosen(clients: Sequence[int], kept: Tensor) -> list[int]:
    return [client for client, keep in zip(clients, kept.tolist(), strict=True) if keep]


def _relative(values: Tensor, known: Tensor, least: float) -> Tensor:
    """Robust deviations of the values over their median, where they are known; 0 elsewhere."""
    result = torch.zeros_like(values)
    if known.any():
        shares = values[known] / _median(values[known]).clamp_min(least)
        distance = shares - _median(shares)
        result[known] = distance / (1.4826 * _median(distance.abs())).clamp_min(RESOLUTION)
    return result


def _median(values: Tensor) -> Tensor:
    """The mean of the two middle values where their number is even; torch takes the lower one."""
    return values.quantile(0.5)


def _rest(units: Tensor, centre: Tensor, direction: Tensor) -> Tensor:
    """What is left of the rows outside the plane of two vectors, `[n, RESIDUAL]`."""
    first = _unit(centre)
    second = _unit(direction - (direction @ first) * first)
    rest = units - (units @ first)[:, None] * first - (units @ second)[:, None] * second
    length = _median(torch.linalg.vector_norm(rest, dim=1)).clamp_min(_LEAST)
    return count_sketch(rest, RESIDUAL, 0) / length * math.sqrt(RESIDUAL)


def _unit(vectors: Tensor) -> Tensor:
    lengths: Tensor = vectors.norm(dim=-1, keepdim=True)
    return vectors / lengths.clamp_min(_LEAST)
