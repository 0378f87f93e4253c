"""Whether one client moves a rule's step by no more than the rule says, tried on the rule itself.

Noise on the step is for the bound that a rule declares (`sensitivity`). What it makes of a few rows
with and without one of them must not lie further apart, in cohorts up to the largest and whoever
is away; and the rounds after, in which that client is as it is in both, must not tell whether it
was there: a rule that keeps something of the rows (a momentum on the server) would release it again
in rounds that the account does not charge the client for.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from fedexp.core.checks import InputError
from fedexp.core.protocols import Aggregator
from fedexp.core.rng import generator, torch_generator
from fedexp.core.text import called
from fedexp.core.types import State, Updates

TOLERANCE = 1e-3  # relative, of float32 sums
ROUNDING = 2.0**-24  # of a sum so far, as each row is added to it
SIZES = (1, 2, 5)  # of cohorts that are tried, and twice as large ones up to the largest
TRIED_NUMBERS = 4096  # in a row at most: a bound does not come with the size of a model
MANY = 1000  # in a cohort at most; and so many clients, the first ones, are away once
LATER = 5  # rounds after that which a client is away from: a rule may begin with its third
AWAY = "use aggregator=mean, or noise in the clients: privacy=local_gaussian or dp_sgd"


def refuse_false_bound(
    rule: Aggregator,
    clip_norm: float,
    bound: Callable[[int], float],
    d: int,
    largest: int,
    n_clients: int,
) -> None:
    """Raise InputError if a client moves n times the step further than `bound(n)`, or for longer.

    Args:
        rule: left as it is.
        clip_norm: no row is longer.
        bound: in a cohort of n.
        d: numbers in a row.
        largest: cohort that there will be.
        n_clients: of the federation, whom a rule may weigh by their numbers.
    """
    for n in _sizes(min(largest, MANY)):
        for rows in _cohorts(n, d, clip_norm):
            _try(_Tried(rule, clip_norm, bound, tuple(range(n))), rows, LATER if n in SIZES else 1)
    if largest > 1:
        _, against, _ = _cohorts(2, min(d, 2), clip_norm)
        for client in range(min(n_clients, MANY)):
            pair = (client - 1, client) if client else (1, 0)
            _try(_Tried(rule, clip_norm, bound, pair), against, 0)


def _sizes(largest: int) -> list[int]:
    """Of the cohorts that are tried."""
    twice = (SIZES[-1] * 2**k for k in range(1, largest.bit_length()))
    return sorted({size for size in (*SIZES, *twice, largest) if size <= largest})


@final
@dataclass(frozen=True)
class _Tried:
    """A rule, what it says, and a cohort whose last client is there, or away."""

    rule: Aggregator
    clip_norm: float
    bound: Callable[[int], float]
    clients: tuple[int, ...]


def _try(tried: _Tried, rows: Tensor, later_rounds: int) -> None:
    """Raise InputError if the last client's row moves the step further, or for longer."""
    n, d = rows.shape
    allowed = max(tried.bound(n), tried.bound(max(1, n - 1))) * (1 + TOLERANCE)
    there, away = _Rounds(tried, d), _Rounds(tried, d)
    moved = float(torch.linalg.vector_norm(there.total(rows) - away.total(rows[:-1])))
    if not moved <= allowed + n * n * ROUNDING * tried.clip_norm:  # nor what is not a number
        raise InputError(
            f"says that one client moves {n} times its step by {tried.bound(n):g} at most "
            f"(sensitivity for rows no longer than {tried.clip_norm:g}), and one moves it by "
            f"{moved:.4g}; {AWAY}",
            "aggregator",
            called(tried.rule),
        )
    for _ in range(later_rounds):
        later = float(torch.linalg.vector_norm(there.total(rows) - away.total(rows)))
        if not later <= TOLERANCE * tried.clip_norm:
            raise InputError(
                "keeps something of a round's rows for the next rounds' steps, before there is "
                "noise in it, and a client is accounted for in the rounds that it takes part "
                f"in; use server_optimizer for what comes after the noise, or {AWAY[4:]}",
                "aggregator",
                called(tried.rule),
            )


class _Rounds:
    """Rounds of a copy of a rule, one after the other."""

    def __init__(self, tried: _Tried, d: int) -> None:
        self._rule, self._clients = copy.deepcopy(tried.rule), tried.clients
        self._state: State = self._rule.init(d)

    def total(self, rows: Tensor) -> Tensor:
        """The step of `rows` `[n, d]` times n; what leaves an empty cohort is nothing."""
        n = len(rows)
        if not n:
            return torch.zeros(rows.shape[1])
        # In ascending order, as in a round.
        order = sorted(range(n), key=self._clients.__getitem__)
        ids = tuple(self._clients[k] for k in order)
        updates = Updates(rows[order], ids, torch.ones(n, dtype=torch.float64))
        draws = generator(0, "bound tried")
        step, self._state = self._rule(updates, self._state, draws)
        return n * step


def _cohorts(n: int, d: int, clip_norm: float) -> Iterator[Tensor]:
    """Rows `[n, d]` as long as they may be; the last one goes with the others, or against them.

    Or it decides between two halves, as a median does.
    """
    drawn = torch.randn(2, d, generator=torch_generator(0))
    one, other = drawn * (clip_norm / torch.linalg.vector_norm(drawn, dim=1, keepdim=True))
    for last in (one, -one, other):
        yield torch.cat([one.expand(n - 1, d), last[None]])
    for last in (one, -one) if n > 2 else ():
        halves = torch.where(torch.arange(n - 1)[:, None] % 2 == 0, one, -one)
        yield torch.cat([halves, last[None]])
