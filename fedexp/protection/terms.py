"""What the user wants to be promised: its keys, their checks, and the noise that it takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import final

from fedexp.config.parts import Config
from fedexp.core.checks import InputError
from fedexp.privacy.account import OPERATING_SYSTEM, SEEDED, PrivacyAccount
from fedexp.privacy.accounting import (
    EPSILON_ERROR,
    Event,
    check_accountant,
    check_delta,
    delta_remark,
    epsilon,
)
from fedexp.privacy.calibration import PRECISION, calibrated_noise_multiplier, least_noise
from fedexp.protection.plan import Plan, Protection

# Keys of the two groups that are not the part's own: what is promised with it.
PROMISE = ("delta", "accountant", "sampling", "target_epsilon", "max_epsilon", "allow_no_noise")
CALIBRATION_PRECISION = 1e-3  # relative, for accountants other than prv and rdp

ONE_EXAMPLE, ONE_CLIENT = "one example of one client", "one client with all its data"
NOISE_SOURCES = {"task": SEEDED, "os": OPERATING_SYSTEM}
NO_AMPLIFICATION = "not counted on: the server sees who takes part"


def target_epsilon_of(node: Config) -> float | None:
    """The target of a group's node, as it was given.

    YAML's infinity is a word where it comes from a command line.

    >>> target_epsilon_of({"target_epsilon": ".inf"}), target_epsilon_of({"target_epsilon": 3.0})
    (inf, 3.0)
    """
    if node["target_epsilon"] is None:
        return None
    target: float = math.inf if node["target_epsilon"] == ".inf" else node["target_epsilon"]
    return target


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
    def of(cls, node: Config, population: int, unit: str) -> Terms:
        """From a group's node; raises InputError for what cannot be promised."""
        delta, target = node["delta"], target_epsilon_of(node)
        accountant = node.get("accountant", "rdp")
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
        allow = node.get("allow_no_noise", False)
        return cls(delta or 0.0, accountant, target, node["max_epsilon"], allow, remark)

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
        # rdp costs less than prv, and prv never says more than rdp and this.
        bound = epsilon(history, self.delta, "rdp").epsilon + 2 * EPSILON_ERROR
        if bound <= self.target_epsilon:
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
        assert isinstance(account, PrivacyAccount)
        start, cohort = account.init(), plan.cohort(0)
        if account.would_exceed(start, cohort):
            after = account.epsilon(account.ledger.charge(start, account.price.at_most(cohort)))
            raise InputError(
                f"not even the first round keeps within it: epsilon would be {after:.4g}; raise it "
                "or the noise",
                "max_epsilon",
                self.max_epsilon,
            )
        remarks = [self.remark] if self.remark else []
        if noise_seed == "os":
            remarks.append(f"noise comes from {OPERATING_SYSTEM}")
        return replace(protection, remarks=tuple(remarks))
