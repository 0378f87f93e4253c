"""Is this client's update kinder to the example than the other clients' are?

    D_t(c, x) = s_t(c, x) - mean over the others of s_t(., x)
    V_t(c, x) = variance over the others of s_t(., x)
    score(c, x) = sum over t of D_t / sqrt(sum over t of V_t)

s_t(c, x) is how much the row of round t in which client c is lowers the loss of x
(`fedexp.leakage.membership.slopes`). That an example is hard, or the round a large step, the others
show as well; what is left is the client's own. With fewer than two others there is no deviation and
V is 1, with none there is no mean and D is s: what a single sum tells by itself.

A round in which a client is absent adds nothing to its score. FedMIA takes the mean over rounds of
D_t / sqrt(V_t). With nine others a single round's deviation is a poor estimate, and one that
happens to be small carries the mean away. One deviation for all rounds does not have that fault: on
MNIST it took the AUC from 0.750 to 0.784 and the TPR at 0.1 % FPR from 0.083 to 0.100 (one seed of
the setting of docs/membership.md).

Source: Zhu, Li, Gu, Yao, Fan and Han, "FedMIA: An Effective Membership Inference Attack Exploiting
'All for One' Principle in Federated Learning", arXiv:2402.06289, CVPR 2025, section 4.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import final

import numpy as np

OTHERS = 2  # at least, for a deviation


def against_others(slopes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The D and V `[k, n]` float64 of slopes `[k, n]`; NaN in `slopes` is a row not to be used.

    >>> D, V = against_others(np.array([[5.0], [1.0], [3.0]]))
    >>> D.ravel().tolist(), V.ravel().tolist()
    ([3.0, -3.0, 0.0], [2.0, 2.0, 8.0])
    """
    usable = np.isfinite(slopes)
    s = np.where(usable, slopes, 0.0).astype(np.float64)
    centre = s.sum(axis=0) / np.maximum(usable.sum(axis=0), 1)
    s = np.where(usable, s - centre, 0.0)  # or the squares would cancel
    others = usable.sum(axis=0) - usable
    mean = (s.sum(axis=0) - s) / np.maximum(others, 1)
    squares = ((s**2).sum(axis=0) - s**2) - others * mean**2
    variance = np.where(others >= OTHERS, np.maximum(squares, 0.0) / np.maximum(others - 1, 1), 1.0)
    difference = np.where(others > 0, s - mean, s + centre)
    return np.where(usable, difference, np.nan), variance


@final
@dataclass(frozen=True)
class Tally:
    """Sums over rounds for what is asked, of whichever client it is asked of; starts at 0.

    Attributes:
        difference: the sum of D_t.
        variance: the sum of V_t.
    """

    difference: np.ndarray
    variance: np.ndarray

    @classmethod
    def empty(cls, *shape: int) -> Tally:
        """Nothing seen yet."""
        return cls(np.zeros(shape), np.zeros(shape))

    def add(self, where: np.ndarray, difference: np.ndarray, variance: np.ndarray) -> None:
        """One round more at the places `where`."""
        self.difference[where] += difference
        self.variance[where] += variance

    @property
    def scores(self) -> np.ndarray:
        """Larger for "member"; 0 where nothing was seen, and where all rows agree to the bit."""
        positive = self.variance > 0
        scores: np.ndarray = np.where(
            positive, self.difference / np.sqrt(np.where(positive, self.variance, 1.0)), 0.0
        )
        return scores


def asked_of(
    rounds: Iterable[tuple[np.ndarray, np.ndarray]],
    client: np.ndarray,
    never: np.ndarray | None = None,
) -> np.ndarray:
    """The score `[n]` of every example against the one client that it is asked of.

    Args:
        rounds: slopes `[k, n]` and the row `[n_clients]` that each client is in, -1 for none.
        client: `[n]` whom each is asked of.
        never: `[n]` a client whose row counts for nothing, nor the round where it is also that of
            the client asked; None: all rows count.
    """
    places = np.arange(len(client))
    tally = Tally.empty(len(client))
    for slopes, row_of in rounds:
        table = slopes.astype(np.float64)
        if never is not None:
            away = row_of[never] >= 0
            table[row_of[never][away], places[away]] = np.nan
        difference, variance = against_others(table)
        rows = row_of[client]
        there = (rows >= 0) if never is None else (rows >= 0) & (rows != row_of[never])
        at = rows[there], places[there]
        tally.add(there, difference[at], variance[at])
    return tally.scores


def of_every_client(
    rounds: Iterable[tuple[np.ndarray, np.ndarray]], clients: np.ndarray, n: int
) -> np.ndarray:
    """The score `[len(clients), n]` of every example against each of the clients."""
    tally = Tally.empty(len(clients), n)
    for slopes, row_of in rounds:
        difference, variance = against_others(slopes)
        rows = row_of[clients]
        there = rows >= 0
        tally.add(there, difference[rows[there]], variance[rows[there]])
    return tally.scores
