"""Whether one client moves a rule's step by no more than the rule says, tried on the rule itself.

Noise on the step is for the bound that a rule declares (`sensitivity`). What it makes of a few rows
with and without one of them must not lie further apart; and the round after, in which that client
has no part, must not tell whether it was there: a rule that keeps something of the rows (a momentum
on the server) would release it again in rounds that the account does not charge the client for.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from fedexp.core.checks import InputError
from fedexp.core.protocols import Aggregator
from fedexp.core.rng import generator, torch_generator
from fedexp.core.text import called
from fedexp.core.types import State, Updates

TOLERANCE = 1e-3  # relative, of float32 sums
SIZES = (1, 2, 5)  # of cohorts that are tried
TRIED_NUMBERS = 4096  # in a row at most: a bound does not come with the size of a model
AWAY = "use aggregator=mean, or noise in the clients: privacy=local_gaussian or dp_sgd"


def refuse_false_bound(
    rule: Aggregator, clip_norm: float, bound: Callable[[int], float], d: int, largest: int
) -> None:
    """Raise InputError if a client moves n times the step further than `bound(n)`, or for longer.

    Args:
        rule: left as it is.
        clip_norm: no row is longer.
        bound: in a cohort of n.
        d: numbers in a row.
        largest: cohort that there will be.
    """
    for n in (size for size in SIZES if size <= largest):
        allowed = max(bound(n), bound(max(1, n - 1))) * (1 + TOLERANCE)
        for rows in _cohorts(n, d, clip_norm):
            there, away = _Rounds(rule, d), _Rounds(rule, d)
            moved = float(torch.linalg.vector_norm(there.total(rows) - away.total(rows[:-1])))
            if not moved <= allowed:  # nor what is not a number
                raise InputError(
                    f"says that one client moves {n} times its step by {bound(n):g} at most "
                    f"(sensitivity for rows no longer than {clip_norm:g}), and one moves it by "
                    f"{moved:.4g}; {AWAY}",
                    "aggregator",
                    called(rule),
                )
            later = float(torch.linalg.vector_norm(there.total(rows) - away.total(rows)))
            if not later <= TOLERANCE * clip_norm:
                raise InputError(
                    "keeps something of a round's rows for the next rounds' steps, before there is "
                    "noise in it, and a client is accounted for in the rounds that it takes part "
                    f"in; use server_optimizer for what comes after the noise, or {AWAY[4:]}",
                    "aggregator",
                    called(rule),
                )


class _Rounds:
    """Rounds of a copy of a rule, one after the other."""

    def __init__(self, rule: Aggregator, d: int) -> None:
        self._rule = copy.deepcopy(rule)
        self._state: State = self._rule.init(d)

    def total(self, rows: Tensor) -> Tensor:
        """The step of `rows` `[n, d]` times n; what leaves an empty cohort is nothing."""
        n = len(rows)
        if not n:
            return torch.zeros(rows.shape[1])
        updates = Updates(rows.clone(), tuple(range(n)), torch.ones(n, dtype=torch.float64))
        draws = generator(0, "bound tried")
        step, self._state = self._rule(updates, self._state, draws)
        return n * step


def _cohorts(n: int, d: int, clip_norm: float) -> Iterator[Tensor]:
    """Rows `[n, d]` as long as they may be; the last one goes with the others, or against them."""
    drawn = torch.randn(2, d, generator=torch_generator(0))
    one, other = drawn * (clip_norm / torch.linalg.vector_norm(drawn, dim=1, keepdim=True))
    for last in (one, -one, other):
        yield torch.cat([one.expand(n - 1, d), last[None]])
