"""What an omniscient adversary computes from the honest rows of a round.

All of it goes through the rows in chunks of columns that fit the processor's cache, each centred on
its own mean: one read of `[h, d]`, no second copy of it, and rows that agree to many digits keep
those in which they differ.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fedexp.core.types import Updates

CHUNK_COLUMNS = 16_384


def known_rows(updates: Updates, malicious: Tensor) -> Tensor:
    """The honest rows that can be reckoned with: `[h, d]`, h at least 1.

    A row that is not finite is left out, as any server would: a client whose training diverged
    must not turn what the adversary sends into NaN. Where none is finite, all are handed back.
    """
    places = known_places(updates, malicious)
    return updates.matrix if len(places) == len(updates) else updates.matrix[places]


def known_places(updates: Updates, malicious: Tensor) -> Tensor:
    """Which of the round's rows the known ones are: `[h]` int64."""
    honest = torch.ones_like(malicious) if bool(malicious.all()) else ~malicious
    finite = honest & torch.linalg.vector_norm(updates.matrix, dim=1).isfinite()
    return (finite if bool(finite.any()) else honest).nonzero()[:, 0]


def mean_and_deviation(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every coordinate: `[h, d]` to `[d]` and `[d]`.

    The deviation is the unbiased one (divided by h - 1); of a single row it is 0.

    >>> mean_and_deviation(torch.tensor([[1.0, 5.0], [3.0, 5.0], [5.0, 5.0]]))
    (tensor([3., 5.]), tensor([2., 0.]))
    """
    mean, deviation = torch.empty_like(rows[0]), torch.empty_like(rows[0])
    for columns, centre, centred in centred_chunks(rows):
        mean[columns] = centre
        deviation[columns] = centred.square_().sum(dim=0)
    return mean, deviation.div_(max(len(rows) - 1, 1)).sqrt_()


def centred_gram(rows: Tensor) -> Tensor:
    """Inner products of the rows minus their mean: `[h, d]` to `[h, h]` float64."""
    gram = torch.zeros(len(rows), len(rows), dtype=torch.float64, device=rows.device)
    for _, _, centred in centred_chunks(rows):
        gram += centred @ centred.T
    return gram


def centred_chunks(rows: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Columns, their mean, and a fresh copy of the rows minus it; chunk by chunk."""
    for start in range(0, rows.shape[1], CHUNK_COLUMNS):
        columns = slice(start, start + CHUNK_COLUMNS)
        centre = rows[:, columns].mean(dim=0)
        yield columns, centre, rows[:, columns] - centre
