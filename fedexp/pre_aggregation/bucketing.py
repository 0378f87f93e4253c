"""Bucketing: the mean of a few clients, drawn at random, takes their place.

    y_i = mean of delta_pi((i-1)s + 1) ... delta_pi(i s);   pi a random order of the n clients

A bucket's mean varies less than a client's row, but one attacker spoils a whole bucket: n rows with
f attackers become ceil(n / s) rows with up to f. Source: Karimireddy, He and Jaggi, "Byzantine-
Robust Learning on Heterogeneous Datasets via Bucketing", ICLR 2022, algorithm 1. Breakdown point:
that of the rule behind it, at f attackers among ceil(n / s) rows.

The paper's theorem takes s = floor(delta_max n / f) for a rule that stands a share delta_max of
attackers, floor(n / 2f) for the best of rules. Where 2f divides n, this leaves 2f buckets with f
attackers, which no rule stands: here s = floor((n - 1) / 2f), the largest with over 2f buckets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np
import torch
from torch import Tensor

from fedexp.core.checks import InputError, at_least
from fedexp.core.columns import over_columns
from fedexp.core.types import Updates

COLUMNS = 2**14  # at once: with fewer, a thousand clients cost mostly calls


@final
@dataclass(frozen=True)
class Bucketing:
    """Means of random buckets of clients: `[n, d]` to `[ceil(n / s), d]`; the last may be smaller.

    A bucket weighs what its clients weigh together, and has a negative number in `client_ids`
    (-1, -2, ...), as it is no client; what the clients measured is left out.

    Args:
        assumed_malicious: f, how many of the clients that answer may lie.
        bucket_size: s, clients a bucket; 1 only shuffles, None takes the largest that keeps the
            attackers in fewer than half of the buckets (with f = 0 a single bucket).

    Raises:
        InputError: the attackers could sit in half or more of the buckets.
    """

    assumed_malicious: int
    bucket_size: int | None

    def __post_init__(self) -> None:
        at_least(0, assumed_malicious=self.assumed_malicious)
        if self.bucket_size is not None:
            at_least(1, bucket_size=self.bucket_size)

    def __call__(self, updates: Updates, rng: np.random.Generator) -> Updates:
        """The buckets' means, in the order in which they were drawn from `rng`."""
        n = len(updates)
        size = self._size(n)
        order = torch.from_numpy(rng.permutation(n))
        buckets = order.split(size)
        rows = _means(updates.matrix, [members.to(updates.matrix.device) for members in buckets])
        weights = updates.num_examples[order.to(updates.num_examples.device)]
        return replace(
            updates,
            matrix=rows,
            client_ids=tuple(range(-1, -len(buckets) - 1, -1)),
            num_examples=torch.stack([weight.sum() for weight in weights.split(size)]),
            metrics=(),
        )

    def _size(self, n: int) -> int:
        f = self.assumed_malicious
        largest = (n - 1) // (2 * f) if f else n
        size = largest if self.bucket_size is None else self.bucket_size
        if f and largest < 1:
            raise InputError(
                f"needs more than 2 x {f} clients, but {n} are in the round",
                "assumed_malicious",
                f,
            )
        if f and size > largest:
            raise InputError(
                f"makes {-(-n // size)} buckets of {n} clients, and {f} attackers could be half of "
                f"them or more: use at most {largest}",
                "bucket_size",
                size,
            )
        return size


def _means(matrix: Tensor, buckets: Sequence[Tensor]) -> Tensor:
    """The mean of the rows `[n, d]` of each bucket: `[len(buckets), d]`."""
    means = matrix.new_empty(len(buckets), matrix.shape[1])

    def work(chunks: Iterator[slice]) -> None:
        for columns in chunks:
            chunk = matrix[:, columns]
            for mean, members in zip(means, buckets, strict=True):
                torch.mean(chunk[members], dim=0, out=mean[columns])

    over_columns(work, matrix, COLUMNS * len(matrix))
    return means
