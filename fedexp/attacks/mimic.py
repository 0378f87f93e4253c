"""Mimic: the attackers all copy one honest client, so that its data count many times over.

    delta_k <- x_i,   i = argmax_i |<x_i - m, u>|

x_1..x_h are the honest rows, m their mean, u the direction in which they differ most (the top
principal direction). Such a row is nothing out of the ordinary; it hurts where clients differ.

Knows: the honest updates of this round. Source: Karimireddy, He and Jaggi, "Byzantine-Robust
Learning on Heterogeneous Datasets via Bucketing", ICLR 2022 (the mimic attack).

u is of this round's rows, exactly, and the furthest client may be on either side and change from
round to round. Give `client` to keep to one, which is what byzfl does with its epsilon (a position
among the honest). The paper estimates u over the rounds of a warm-up by Oja's rule, and then keeps
to the client found (`warmup`; mu_0 = u_0 = 0 but for a random direction in place of u in the first
sum, t from 0):

    mu <- (t mu + m) / (t + 1),     s = sum_i <x_i - mu, u> (x_i - mu),     i = argmax_i <x_i, u>
    u <- (t u + s / ||s||) / (t + 1), divided by its length

as in the authors' code, where the paper leaves open that malicious clients copy the client found so
far during the warm-up too. t counts rounds that are attacked. Ours: in rounds that the client found
does not answer, the one furthest along u takes its place.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from fedexp.attacks.base import LeavesData, with_malicious_rows
from fedexp.attacks.honest import CHUNK_COLUMNS, centred_gram, known_places, known_rows
from fedexp.core.checks import InputError, at_least
from fedexp.core.types import Rule, State, Updates


@final
@dataclass(frozen=True)
class Mimic(LeavesData):
    """Every malicious client sends what one honest client sends.

    Args:
        client: number of the client to copy in the rounds that it answers as an honest one; in the
            others, and for None, the one that differs most.
        warmup: rounds in which the client to copy is found as in the paper; None: it is not.

    Raises:
        InputError: both are given, or are no whole numbers.
    """

    client: int | None
    warmup: int | None = None  # as in runs of the time before there was such a key

    def __post_init__(self) -> None:
        if self.client is not None:
            at_least(0, client=self.client)
        if self.warmup is not None:
            at_least(1, warmup=self.warmup)
        if self.client is not None and self.warmup is not None:
            raise InputError(
                f"finds the client to copy, and attack.client={self.client} names it; use null",
                "warmup",
                self.warmup,
            )

    def rewrite(
        self, updates: Updates, malicious: Tensor, rule: Rule, rng: np.random.Generator
    ) -> Updates:
        """New updates with one and the same row for all malicious clients."""
        if not malicious.any():
            return updates
        if self.warmup is not None:
            return self.rewrite_remembering(updates, malicious, rule, rng, {})[0]
        for k, client in enumerate(updates.client_ids):
            if client == self.client and not malicious[k]:
                return with_malicious_rows(updates, malicious, updates.matrix[k])
        rows = known_rows(updates, malicious)
        return with_malicious_rows(updates, malicious, rows[most_different(rows)])

    def rewrite_remembering(
        self,
        updates: Updates,
        malicious: Tensor,
        rule: Rule,
        rng: np.random.Generator,
        memory: State,
    ) -> tuple[Updates, State]:
        """The same, with what is found in the warm-up: `mean` and `direction` `[D]`, `client`."""
        if self.warmup is None or not malicious.any():
            return self.rewrite(updates, malicious, rule, rng), memory
        places = known_places(updates, malicious)
        rows = known_rows(updates, malicious)
        ids = torch.tensor(updates.client_ids, device=rows.device)[places]
        t = int(memory["rounds"]) if memory else 0
        if t < self.warmup:
            mean, direction = _learned(rows, t, memory, rng)
            place = int((rows @ direction).argmax())
            rounds = torch.tensor(t + 1)
            found = {"mean": mean, "direction": direction, "rounds": rounds, "client": ids[place]}
            return with_malicious_rows(updates, malicious, rows[place]), found
        there = (ids == memory["client"]).nonzero()[:, 0]
        place = int(there[0]) if len(there) else int((rows @ memory["direction"]).argmax())
        return with_malicious_rows(updates, malicious, rows[place]), memory


def _learned(
    rows: Tensor, t: int, memory: State, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Mu and u of the module's formula after the (t + 1)-th round, of honest rows `[h, D]`."""
    now = rows.mean(dim=0)
    if t:
        mean, before = (t * memory["mean"] + now) / (t + 1), memory["direction"]
    else:
        start = torch.from_numpy(rng.standard_normal(rows.shape[1], dtype=np.float32))
        mean, before = now, start.to(rows.device)
    apart = torch.zeros(len(rows), device=rows.device)
    for columns in _chunks(rows):
        apart += (rows[:, columns] - mean[columns]) @ before[columns]
    pull = torch.empty_like(mean)
    for columns in _chunks(rows):
        pull[columns] = apart @ (rows[:, columns] - mean[columns])
    if not pull.any():  # all agree: nothing is learned of u
        return mean, before / before.norm()
    moved = (t * before + pull / pull.norm()) / (t + 1) if t else pull
    return mean, moved / moved.norm()


def _chunks(rows: Tensor) -> Iterator[slice]:
    for start in range(0, rows.shape[1], CHUNK_COLUMNS):
        yield slice(start, start + CHUNK_COLUMNS)


def most_different(rows: Tensor) -> int:
    """Which row lies furthest out along the top principal direction of `[h, d]`.

    >>> most_different(torch.tensor([[0.0, 1.0], [0.0, -1.0], [9.0, 0.0]]))
    2
    """
    gram = centred_gram(rows)
    if not gram.isfinite().all():
        return 0
    # <x_i - m, u> is the i-th entry of the Gram matrix's top eigenvector, times a constant.
    return int(torch.linalg.eigh(gram).eigenvectors[:, -1].abs().argmax())
