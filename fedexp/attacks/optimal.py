"""Optimal ALIE and IPM: the factor is searched against the rule that the server uses.

    factor = argmax <rule(rows with the malicious ones crafted) - m, u>,    m: the honest mean
    ALIE: crafted = m + factor * sigma,  u = sigma / ||sigma||   (`down`: minus both)
    IPM:  crafted = -factor * m,         u = -m / ||m||

Knows: the honest updates of this round, and the rule, which it may try out as it is applied: behind
the validation of updates, and on the means of groups where the server sees no rows. Source of the
search: Shejwalkar and Houmansadr, "Manipulating the Byzantine", NDSS 2021; as a line search on
these two attacks: Allouah, Farhadkhani, Guerraoui, Gupta, Pinot and Stephan, "Fixing by Mixing",
AISTATS 2023, and byzfl. ALIE and IPM: see `fedexp.attacks.alie` and `fedexp.attacks.ipm`.

Damage is how far the step moves the way the attack pushes. They take ||step - m|| instead, which
counts as a success that a rule which selects, such as Krum, was made to select another honest row.

The search is byzfl's: from 0 upwards with steps that double as long as the damage grows, then with
steps that shrink. Damage need not have one peak, so that the result is a good factor rather than
the best; the factor of the plain attack is tried as well, and kept unless the search did better. A
trial that the rule refuses, or that gives a step that is not finite, counts as no damage: the
server would skip the round. Where every trial fails, the plain factor is left.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
from torch import Tensor

from fedexp.attacks.alie import DIRECTIONS, Direction, check_z, formula_z
from fedexp.attacks.base import LeavesData, with_malicious_rows
from fedexp.attacks.honest import known_rows, mean_and_deviation
from fedexp.core.checks import InputError, at_least, one_of, positive
from fedexp.core.types import Rule, Updates


@final
@dataclass(frozen=True)
class OptimalAlie(LeavesData):
    """ALIE with the z that does the most damage to the rule in use.

    Args:
        z: the plain attack's deviations, tried too; None takes the paper's formula.
        evaluations: trials of the search, each one call of the rule.
        first_step: step of the search, in deviations.
        ratio: factor on the step after a trial that did not help, between 0 and 1.
        direction: see `Alie`.
    """

    z: float | None
    evaluations: int
    first_step: float
    ratio: float
    direction: Direction

    def __post_init__(self) -> None:
        check_z(self.z)
        one_of(tuple(DIRECTIONS), direction=self.direction)
        check_search(self.evaluations, self.first_step, self.ratio)

    def rewrite(
        self, updates: Updates, malicious: Tensor, rule: Rule, rng: np.random.Generator
    ) -> Updates:
        """New updates with one and the same row for all malicious clients."""
        if not malicious.any():
            return updates
        mean, deviation = mean_and_deviation(known_rows(updates, malicious))
        towards = DIRECTIONS[self.direction] * deviation
        damage = damage_to(rule, updates, malicious, mean, towards, lambda z: mean + z * towards)
        plain = formula_z(len(updates), int(malicious.sum())) if self.z is None else self.z
        z = most_damaging(damage, plain, self.evaluations, self.first_step, self.ratio)
        return with_malicious_rows(updates, malicious, mean + z * towards)


@final
@dataclass(frozen=True)
class OptimalIpm(LeavesData):
    """IPM with the epsilon that does the most damage to the rule in use.

    Args:
        epsilon: the plain attack's length, tried too.
        evaluations: trials of the search, each one call of the rule.
        first_step: step of the search, in lengths of the honest mean.
        ratio: factor on the step after a trial that did not help, between 0 and 1.
    """

    epsilon: float
    evaluations: int
    first_step: float
    ratio: float

    def __post_init__(self) -> None:
        positive(epsilon=self.epsilon)
        check_search(self.evaluations, self.first_step, self.ratio)

    def rewrite(
        self, updates: Updates, malicious: Tensor, rule: Rule, rng: np.random.Generator
    ) -> Updates:
        """New updates with one and the same row for all malicious clients."""
        if not malicious.any():
            return updates
        mean = known_rows(updates, malicious).mean(dim=0)
        damage = damage_to(rule, updates, malicious, mean, -mean, lambda epsilon: -epsilon * mean)
        epsilon = most_damaging(damage, self.epsilon, self.evaluations, self.first_step, self.ratio)
        return with_malicious_rows(updates, malicious, -epsilon * mean)


def check_search(evaluations: int, first_step: float, ratio: float) -> None:
    """Refuse a search that cannot run or whose steps do not shrink."""
    at_least(1, evaluations=evaluations)
    positive(first_step=first_step, ratio=ratio)
    if ratio >= 1:
        raise InputError("must be a number between 0 and 1, both excluded", "ratio", ratio)


def damage_to(
    rule: Rule,
    updates: Updates,
    malicious: Tensor,
    mean: Tensor,
    towards: Tensor,
    craft: Callable[[float], Tensor],
) -> Callable[[float], float]:
    """How far the rule's step ends up from the honest mean, along `towards` `[D]`, by the factor.

    In lengths of `towards`; -inf where the rule refuses the rows or its step is not finite.
    """
    matrix = updates.matrix.clone()  # one for all trials: only the malicious rows change
    pushed = towards.double()
    square = float(pushed @ pushed) or 1.0  # nothing to push along: no damage, whatever the factor

    def damage(factor: float) -> float:
        matrix[malicious] = craft(factor)
        try:
            step = rule(matrix)
        except InputError:
            return -math.inf
        distance = float((step - mean).double() @ pushed) / square
        return distance if math.isfinite(distance) else -math.inf

    return damage


def most_damaging(
    damage: Callable[[float], float],
    plain: float,
    evaluations: int,
    first_step: float,
    ratio: float,
) -> float:
    """The factor found from 0 upwards, or `plain` where that does no less damage.

    >>> most_damaging(lambda factor: -((factor - 30) ** 2), 1.0, 20, 10.0, 0.8)
    30.0
    """
    best, most, step = 0.0, damage(0.0), first_step
    expanding = True
    for _ in range(evaluations - 1):
        trial = damage(best + step)
        helped = trial > most
        if helped:
            best, most = best + step, trial
        expanding = expanding and helped
        step *= 2 if expanding else ratio
    return best if most > damage(plain) else plain
