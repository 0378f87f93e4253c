"""In which rounds the adversary attacks, and how many of its clients take part in them.

    attacks in round r   first <= r <= last, and in a share s of these rounds, evenly spread:
                         floor((r - first + 1) s) > floor((r - first) s)

Between attacks, and after the last one, malicious clients train on their own data and send what
they trained. How long an attack's effect outlives it (its lifespan) is read from those rounds.

A cohort has as many malicious clients as the sampler draws, or a fixed number
(`fedexp.federation.sampling.WithMalicious`): papers compare the two as random sampling and
fixed-frequency attacks (Sun, Kairouz, Suresh and McMahan, "Can You Really Backdoor Federated
Learning?", 2019, arXiv:1911.07963, section 4).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from fedexp.core.checks import InputError, at_least, did_you_mean

KEYS = ("share_of_rounds", "clients_a_round")


@final
@dataclass(frozen=True)
class AttackSchedule:
    """Rounds are counted from 0.

    Args:
        first: the first round that may be attacked.
        last: the last one; None: the run's last.
        share_of_rounds: of the rounds between them, above 0 and at most 1.

    >>> [AttackSchedule(2, 7, 1 / 3).attacks(r) for r in range(9)]
    [False, False, False, False, True, False, False, True, False]
    """

    first: int = 0
    last: int | None = None
    share_of_rounds: float = 1.0

    def __post_init__(self) -> None:
        at_least(0, first_round=self.first)
        if self.last is not None and self.last < self.first:
            raise InputError(
                f"the attack would end before it begins (first_round={self.first})",
                "last_round",
                self.last,
            )
        if not 0 < self.share_of_rounds <= 1:
            raise InputError(
                "must be above 0 and at most 1; attack=none attacks never",
                "schedule.share_of_rounds",
                self.share_of_rounds,
            )

    @property
    def is_constant(self) -> bool:
        """Whether every round is attacked."""
        return self == AttackSchedule()

    def has_begun(self, round: int) -> bool:
        """Whether there may have been an attack, this round included."""
        return round >= self.first

    def attacks(self, round: int) -> bool:
        """Whether malicious clients attack in a round."""
        if not self.has_begun(round) or (self.last is not None and round > self.last):
            return False
        place = round - self.first
        return self._of_the_first(place + 1) > self._of_the_first(place)

    def _of_the_first(self, rounds: int) -> int:
        # A little more, so that what is a whole number is not rounded down to the one below.
        return math.floor(rounds * self.share_of_rounds + 1e-9)

    @property
    def end(self) -> int | None:
        """The last round that is attacked; None: there is no last one, or none at all.

        >>> AttackSchedule(0, 4, 0.3).end
        3
        """
        if self.last is None:
            return None
        return next((r for r in range(self.last, self.first - 1, -1) if self.attacks(r)), None)

    def rounds(self, of: int) -> int:
        """How many of the first `of` rounds are attacked."""
        return sum(self.attacks(r) for r in range(of))


def schedule_of(attack: Mapping[str, Any]) -> AttackSchedule:
    """That of a config's group.

    Raises:
        InputError: no such rounds.
    """
    schedule = _mapping(attack)
    share = schedule.get("share_of_rounds", 1.0)
    if not isinstance(share, int | float) or isinstance(share, bool):
        raise InputError("must be a number", "schedule.share_of_rounds", share)
    last = attack.get("last_round")
    for key, value in (("first_round", attack["first_round"]), ("last_round", last)):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            raise InputError("must be a whole number", key, value)
    return AttackSchedule(attack["first_round"], last, float(share))


def malicious_in_a_cohort(attack: Mapping[str, Any]) -> int | None:
    """How many a config asks for; None: as many as the sampler draws.

    Raises:
        InputError: not a whole number above 0.
    """
    number = _mapping(attack).get("clients_a_round")
    if number is None:
        return None
    if not isinstance(number, int) or isinstance(number, bool):
        raise InputError("must be a whole number, or null", "schedule.clients_a_round", number)
    at_least(1, **{"schedule.clients_a_round": number})
    return number


def _mapping(attack: Mapping[str, Any]) -> Mapping[str, Any]:
    schedule = attack.get("schedule")
    if schedule is None:
        return {}
    if not isinstance(schedule, Mapping):
        raise InputError(f"must have the keys {' and '.join(KEYS)}", "schedule", schedule)
    for key in schedule:
        if key not in KEYS:
            raise InputError(
                f"is not known; {did_you_mean(key, KEYS)}Allowed: {', '.join(KEYS)}",
                f"schedule.{key}",
                schedule[key],
            )
    return schedule
