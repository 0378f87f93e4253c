"""What the user wants to be promised: its keys, their checks, and the noise that it takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal, final

from fedexp.core.checks import InputError, positive
from fedexp.core.protection import Combination, Plan, Protection
from fedexp.core.text import called, rounded_up
from fedexp.core.types import Sent
from fedexp.privacy.account import OPERATING_SYSTEM, SEEDED
from fedexp.privacy.accounting import (
    Event,
    check_accountant,
    check_delta,
    delta_remark,
    epsilon,
)
from fedexp.privacy.calibration import PRECISION, calibrated_noise_multiplier, least_noise

CALIBRATION_PRECISION = 1e-3  # relative, for accountants other than prv and rdp

ONE_EXAMPLE, ONE_CLIENT = "one example of one client", "one client with all its data"
NOISE_SOURCES = {"task": SEEDED, "os": OPERATING_SYSTEM}
NOTHING_SHARED = (
    "needs setting=federated: nothing is shared in this one, so no update needs hiding; use "
    "privacy=dp_sgd, or none"
)
NO_AMPLIFICATION = "not counted on: the server sees who takes part"

Target = float | Literal[".inf"] | None
"""An epsilon to keep within; YAML's infinity is a word where it comes from a command line."""


def as_number(target_epsilon: Target) -> float | None:
    """A target as a number.

    >>> as_number(".inf"), as_number(3.0), as_number(None)
    (inf, 3.0, None)
    """
    return math.inf if target_epsilon == ".inf" else target_epsilon


def check_limits(target_epsilon: Target, max_epsilon: float | None) -> None:
    """Refuse epsilons that are not above 0; infinity as a target means no noise."""
    target = as_number(target_epsilon)
    if target is not None and target != math.inf:
        positive(target_epsilon=target)
    if max_epsilon is not None:
        positive(max_epsilon=max_epsilon)


def check_noise_is_given_once(target_epsilon: Target, **noise: float | None) -> None:
    """Refuse noise that is given as such and as a target, or not at all.

    Args:
        target_epsilon: asks for the least noise that keeps within it.
        noise: by argument, what would give the noise itself; the first one is asked for.
    """
    given = {key: value for key, value in noise.items() if value is not None}
    if given and target_epsilon is not None:
        key, value = next(iter(given.items()))
        raise InputError("the noise is given twice; leave it out, or target_epsilon", key, value)
    if not given and target_epsilon is None:
        key = next(iter(noise))
        raise InputError("the noise is not given; set it, or target_epsilon", key, None)


def refuse_no_noise(target_epsilon: Target, instead: str) -> None:
    """Refuse an infinite target for a mechanism that always has noise."""
    if as_number(target_epsilon) == math.inf:
        raise InputError(
            "asks for no noise, which this mechanism always has; use a finite number, or "
            f"{instead}",
            "target_epsilon",
            math.inf,
        )


def refuse_what_is_sent(parts: Combination, covered: Callable[[Sent], bool], why: str) -> None:
    """Refuse an algorithm that sends something which a mechanism does not protect, by its name.

    Args:
        parts: of the run.
        covered: whether a tensor sent beside the delta is protected with it.
        why: what is wrong with one that is not.
    """
    for sent in parts.algorithm.sends:
        if not covered(sent):
            raise InputError(
                f"{sent.name!r} leaves the clients beside the delta and {why}; use "
                "algorithm=fedavg, or privacy=none",
                "algorithm",
                called(parts.algorithm),
            )


NOT_CLIPPED_TOGETHER = "is not declared to be clipped and noised as one vector with it"


@final
@dataclass(frozen=True)
class Terms:
    """What the user wants to be promised."""

    delta: float
    accountant: str
    target_epsilon: float | None  # infinite: no noise
    max_epsilon: float | None
    allow_no_noise: bool
    remark: str  # on delta; "" for none

    @classmethod
    def of(
        cls,
        population: int,
        unit: str,
        *,
        delta: float | None,
        accountant: str = "rdp",
        target_epsilon: Target,
        max_epsilon: float | None,
        allow_no_noise: bool = False,
    ) -> Terms:
        """For so many members; raises InputError for what cannot be promised.

        Args:
            population: how many members there are of what is protected.
            unit: what they are, in words.
            delta: of the guarantee; None where it is 0.
            accountant: "prv" or "rdp".
            target_epsilon: of the whole run; the noise is the least for it.
            max_epsilon: the run ends before the round that would exceed it.
            allow_no_noise: whether noise of 0 is meant.
        """
        check_accountant(accountant)
        remark = ""
        if delta is not None:
            check_delta(delta)
            remark = delta_remark(delta, population, unit)
            if delta >= 1 / population:
                raise InputError(
                    f"must be below 1/{population}, there being {population} {unit}: to publish "
                    "one of them whole would be allowed",
                    "delta",
                    delta,
                )
        target = as_number(target_epsilon)
        return cls(delta or 0.0, accountant, target, max_epsilon, allow_no_noise, remark)

    def check_noise(self, noise_multiplier: float) -> None:
        """Refuse to run without noise by accident."""
        Event(noise_multiplier, 1.0, 0)
        if noise_multiplier == 0 and not self.allow_no_noise:
            asked = self.target_epsilon == math.inf
            raise InputError(
                "hides nothing, and epsilon is infinite; set privacy.allow_no_noise=true to see "
                "what clipping alone does",
                "target_epsilon" if asked else "noise_multiplier",
                self.target_epsilon if asked else noise_multiplier,
            )

    def least_noise(self, histories: Iterable[tuple[float, int]]) -> float:
        """The least noise multiplier with which no history of (q, steps) exceeds the target."""
        assert self.target_epsilon is not None
        longest: dict[float, int] = {}  # by q: what the ledger asks its accountant about
        for q, steps in histories:
            longest[q] = max(steps, longest.get(q, 0))
        # The one that is likely to need most comes first; most others then need no more.
        ordered = sorted(longest.items(), key=lambda h: h[0] * math.sqrt(h[1]), reverse=True)
        least = 0.0
        while exceeds := next((h for h in ordered if self._exceeds(least, *h)), None):
            calibrated = calibrated_noise_multiplier(
                self.target_epsilon, self.delta, *exceeds, self.accountant
            )
            # And all are looked at again: prv errs by up to 0.01, so that it may say a little more
            # of a history than it said at less noise.
            least = max(calibrated, least * (1 + PRECISION))
        return least

    def _exceeds(self, noise_multiplier: float, q: float, steps: int) -> bool:
        """Whether the accountant says more than the target of a history."""
        assert self.target_epsilon is not None
        history = [Event(noise_multiplier, q, steps)]
        # rdp costs less than prv, and nobody says more than rdp.
        if epsilon(history, self.delta, "rdp").epsilon <= self.target_epsilon:
            return False
        return epsilon(history, self.delta, self.accountant).epsilon > self.target_epsilon

    def least_noise_by(self, spent: Callable[[float], float], about: str) -> float:
        """The least noise multiplier for another accountant, see `calibration.least_noise`."""
        assert self.target_epsilon is not None
        if self.target_epsilon == math.inf:
            return 0.0
        return least_noise(spent, self.target_epsilon, CALIBRATION_PRECISION, about)

    def kept(self, protection: Protection, plan: Plan, noise_seed: str) -> Protection:
        """The protection with remarks; raises InputError if not even one round keeps the limit."""
        account = protection.account
        start, cohort = account.init(), plan.cohort(0)
        if account.would_exceed(start, cohort):
            after = account.epsilon(account.at_most(start, cohort))
            assert after is not None  # or nothing would be exceeded
            raise InputError(
                f"not even the first round keeps within it: epsilon would be {rounded_up(after)}; "
                "raise it or the noise",
                "max_epsilon",
                self.max_epsilon,
            )
        remarks = [self.remark] if self.remark else []
        if noise_seed == "os":
            remarks.append(f"noise comes from {OPERATING_SYSTEM}")
        return replace(protection, remarks=tuple(remarks))
