"""Whether every row that a channel delivers is of one client alone, tried on the channel itself.

Noise on a sum of clipped rows is for one row a client. A channel may say that it delivers such rows
(`a_client_a_row`); what one client sends must then change no other's, in a round and in the next.
Nor may who takes part, where that is what the noise hides; there a channel that draws, or has a
memory, is believed: whoever is away draws nothing, and others then draw something else.
"""

from __future__ import annotations

import copy
from typing import final

import numpy as np
import torch
from torch import Tensor

from fedexp.core.capabilities import a_client_a_row
from fedexp.core.checks import InputError
from fedexp.core.protocols import Channel
from fedexp.core.rng import generator, lent, torch_generator
from fedexp.core.text import called
from fedexp.core.types import State, Updates
from fedexp.federation.sending import transmitted

CLIENTS = 4
ROUNDS = 3  # the later ones from what was kept of the first; 2 of many numbers
NUMBERS = 2**20  # in all rows of a trial, of a cohort as large as there will be
LENGTHS = (0.1, 1.0, 10.0, 100.0)  # of rows, in turn: what goes by the others' may drop the longest
SENDS = "what one client sends changes what arrives of another"
TAKES_PART = "whether one client takes part changes what arrives of another"
TOLERANCE = 1e-3  # relative, of sums over another number of rows


def refuse_mixed_rows(channel: Channel, d: int, largest: int, joins: bool) -> None:
    """Raise InputError if a channel says that rows are of one client each, and they are not.

    Args:
        channel: left as it is.
        d: numbers in a row.
        largest: cohort that there will be.
        joins: whether it is to be hidden who takes part.
    """
    if not a_client_a_row(channel):
        return
    small = CLIENTS * d <= NUMBERS
    few, many = min(CLIENTS if small else 2, largest), min(NUMBERS // d, largest)
    wrong = _wrong(_Trial(channel, few, d, ROUNDS if small else 2), joins, each=small)
    if not wrong and many > few:
        wrong = _wrong(_Trial(channel, many, d, 2), joins, each=False)
    if wrong:
        raise InputError(
            f"says that every row is of one client alone (a_client_a_row), and {wrong}; noise is "
            "for one row a client: use channel=plain, or noise in the clients: "
            "privacy=local_gaussian or dp_sgd",
            "channel",
            called(channel),
        )


@final
class _Trial:
    """Rounds of copies of a channel, with a cohort of which one client is another one."""

    def __init__(self, channel: Channel, n: int, d: int, rounds: int) -> None:
        lengths = torch.tensor(LENGTHS).repeat(-(-n // len(LENGTHS)))[:n, None]
        self.channel, self.n, self.rounds = channel, n, rounds
        self.rows = lengths * torch.randn(n, d, generator=torch_generator(0))
        self.weights = torch.arange(1, n + 1, dtype=torch.float64)
        self.as_they_are = self.arrived(self.rows, self.weights)

    def arrived(
        self, rows: Tensor, weights: Tensor, away: int | None = None, again: int = 0
    ) -> list[list[tuple[int, np.ndarray]]]:
        """Whose rows arrive, and the rows, round by round."""
        there = [k for k in range(self.n) if k != away]
        rows, weights, channel = rows[there], weights[there], _copied(self.channel)
        kept: list[State] = [{} for _ in there]
        rounds = []
        for round in range(self.rounds):
            sent = Updates(rows.clone(), tuple(there), weights.clone())
            draws = generator(round, "channel tried", again)
            with lent(round + ROUNDS * again, torch.device("cpu")):
                delivery, kept = transmitted(channel, sent, kept, draws)
            brought = delivery.updates
            rows_of = zip(brought.client_ids, brought.matrix.numpy().copy(), strict=True)
            rounds.append(list(rows_of))
        return rounds

    def changes_others(self, client: int, factor: float) -> bool:
        """Whether others' rows go by how long, and how heavy, one client's is."""
        rows, weights = self.rows.clone(), self.weights.clone()
        rows[client] *= factor
        weights[client] *= 7
        return not self._same(client, self.arrived(rows, weights))

    def breaks_others(self, client: int) -> bool:
        """The same of a row that is none; a channel that refuses it loses the round for all."""
        try:
            return self.changes_others(client, float("nan"))
        except Exception:
            return False

    def draws(self) -> bool:
        """Whether other rows come by another stream, or in another round."""
        if not self._same(None, self.as_they_are[1:] + self.as_they_are[:1]):
            return True
        return not self._same(None, self.arrived(self.rows, self.weights, again=1))

    def is_missed(self, client: int) -> bool:
        """Whether others' rows go by whether one client is there."""
        without = self.arrived(self.rows, self.weights, away=client)
        return not self._same(client, without, TOLERANCE)

    def _same(
        self, client: int | None, other: list[list[tuple[int, np.ndarray]]], tolerance: float = 0
    ) -> bool:
        """Whether the same arrives of everybody, or of everybody but one client."""
        for one, two in zip(self.as_they_are, other, strict=True):
            mine, theirs = ([(k, row) for k, row in r if k != client] for r in (one, two))
            if [k for k, _ in mine] != [k for k, _ in theirs]:
                return False
            for (_, a), (_, b) in zip(mine, theirs, strict=True):
                same = np.array_equal(a, b, equal_nan=True)
                if not same and not np.linalg.norm(a - b) <= tolerance * np.linalg.norm(a):
                    return False
        return True


def _wrong(trial: _Trial, joins: bool, each: bool) -> str:
    """What changes others' rows; "": nothing."""
    last = trial.n - 1
    if any(
        trial.changes_others(client, -100.0) for client in (range(trial.n) if each else (last,))
    ):
        return SENDS
    if each and trial.breaks_others(last):
        return f"{SENDS}: a row that is not finite does"
    missed = joins and any(
        trial.is_missed(client) for client in ({0, last} if trial.n > 2 else (last,))
    )
    return TAKES_PART if missed and not trial.draws() else ""


def _copied(channel: Channel) -> Channel:
    """A copy, to be spoilt."""
    try:
        return copy.deepcopy(channel)
    except Exception as error:  # what a part of somebody's own holds on to
        raise InputError(
            f"cannot be copied, to be tried before the run ({type(error).__name__}: {error}): open "
            "files and locks where they are used, and hand on (__getattr__) no name with __",
            "channel",
            called(channel),
        ) from error
