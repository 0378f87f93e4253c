"""Bulyan: choose rows by Krum, one at a time, then average per coordinate around their median.

    1. n - 2f times: move the row with the lowest Krum score from the rows left to the chosen ones
    2. step_i = mean of the n - 4f chosen values delta_{k,i} nearest to their median

With m rows left a Krum score is the sum of the squared distances to the m - f - 2 nearest of them.

Source: El Mhamdi, Guerraoui and Rouault, "The Hidden Vulnerability of Distributed Learning in
Byzantium", ICML 2018, section 4. Near the end that number falls to one neighbour, where the nearest
two rows always have the same score, and for f = 1 to none, where all have: there is always at least
one neighbour here, and of equal scores the one whose next neighbour is nearer is lower. Breakdown
point: f attackers, n >= 4f + 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from fedexp.aggregation.meamed import mean_around_median
from fedexp.core.checks import InputError, at_least
from fedexp.core.geometry import squared_distances
from fedexp.core.stateless import Stateless
from fedexp.core.types import State, Updates

Bools = np.ndarray[Any, np.dtype[np.bool_]]
Places = np.ndarray[Any, np.dtype[np.int64]]


@final
@dataclass(frozen=True)
class Bulyan(Stateless):
    """Iterated Krum, then the mean around the median: `[n, d]` to `[d]`.

    Args:
        assumed_malicious: f, how many of the clients that answer may lie; with 0 it is the
            unweighted mean.
    """

    assumed_malicious: int

    def __post_init__(self) -> None:
        at_least(0, assumed_malicious=self.assumed_malicious)

    def __call__(
        self, updates: Updates, state: State, rng: np.random.Generator
    ) -> tuple[Tensor, State]:
        """The step `[d]`; rows that are alike in all respects: the client that comes first.

        Raises:
            InputError: fewer than 4f + 3 clients answered.
        """
        n, f = len(updates), self.assumed_malicious
        if n < 4 * f + 3:
            raise InputError(
                f"needs at least 4 x {f} + 3 clients, but {n} are in the round",
                "assumed_malicious",
                f,
            )
        chosen = iterated_krum(squared_distances(updates.matrix), f) if f else torch.arange(n)
        return mean_around_median(updates.matrix, chosen, n - 4 * f), state


def iterated_krum(squared: Tensor, f: int) -> Tensor:
    """The rows that Krum chooses when it is applied n - 2f times: `[n - 2f]` int64, in that order.

    Args:
        squared: `[n, n]` squared distances between the rows, diagonal 0.
        f: how many rows may lie, at least 1.
    """
    squared = (squared + squared.T) / 2  # alike to the last bit, or rounding would break ties
    distances, who = (part.T.cpu().numpy() for part in squared.sort(dim=1))  # [place, row]
    n, rows = len(squared), np.arange(len(squared))
    place = who.argsort(axis=0)  # [j, row]: where j stands in the row's list
    there = np.ones((n, n), dtype=bool)  # [place, row]: not chosen yet
    # A row's own 0 comes first, or shares the place: it is counted, and the neighbours after it.
    last = np.full(n, max(n - f - 2, 1))
    counted = np.where(rows[:, None] <= last, distances, 0)
    chosen: list[int] = []
    for m in range(n, 2 * f, -1):
        # One after the other down a list, where zeros for what is gone leave no rounding: rows
        # with the same neighbours have the same score, to the last bit.
        scores = np.add.reduce(counted, axis=0)
        scores[chosen] = np.inf
        left = np.isin(rows, chosen, invert=True)  # of which all may be infinitely far apart
        lowest = np.flatnonzero((scores == scores.min()) & left)
        beyond = [there[last[row] + 1 :, row].argmax() + last[row] + 1 for row in lowest]
        best = int(lowest[distances[beyond, lowest].argmin()])
        chosen.append(best)
        there[place[best], rows] = False
        counted[place[best], rows] = 0
        was_counted = place[best] <= last
        if m - f - 2 > 1:  # one neighbour fewer: the chosen one, or else the farthest
            counted[last[~was_counted], rows[~was_counted]] = 0
            last -= ~was_counted
            _move_to(there, last, -1)
        else:  # still one neighbour: the next in the place of the chosen one
            last += was_counted
            _move_to(there, last, 1)
            counted[last, rows] = distances[last, rows]
    return torch.tensor(chosen, device=squared.device)


def _move_to(there: Bools, places: Places, by: int) -> None:
    """Places `[n]` in the lists `[place, row]`, moved by steps to one that is still there."""
    rows = np.arange(len(places))
    while not (stay := there[places, rows]).all():
        places += np.where(stay, 0, by)
