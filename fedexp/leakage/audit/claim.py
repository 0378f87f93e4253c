"""The claim that is audited: the one that the run printed, and the curve that its account means.

(epsilon, delta) alone is ruled out by next to nothing where epsilon is above a few. What the
account stands for is more: an epsilon for every delta, of the history that it counted. All these
pairs are the claim, the recorded one among them; an account that knows no other delta than its own
claims the recorded pair alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

from fedexp.core.capabilities import profile_of
from fedexp.core.checks import InputError
from fedexp.core.protocols import Account
from fedexp.core.text import called
from fedexp.core.types import State
from fedexp.leakage.audit.canaries import NO_CLAIM
from fedexp.leakage.audit.f_dp import Curve
from fedexp.leakage.victim import Victim

DISAGREES = 1.02  # how much more the ledger of the audited training may say without a word
DELTAS = tuple(10 ** (-5 + k / 5) for k in range(24))  # 1e-5 to 0.4: what a test looks at


@final
@dataclass(frozen=True)
class Claim:
    """(epsilon, delta) as recorded with the run, beside what the audited training's ledger says."""

    epsilon: float
    delta: float
    ledger: float  # of the audited training, which has canaries in it
    printed: bool  # False: nothing was recorded, and the ledger's epsilon is taken
    account: Account  # of the audited training
    state: State  # of its ledger

    @classmethod
    def of(cls, victim: Victim, account: Account, state: State) -> Claim:
        """Of a run, and of the audited training after `state`.

        Raises:
            InputError: the run claims no finite epsilon.
        """
        counted, statement = account.epsilon(state), account.statement(state)
        recorded = victim.promise
        epsilon = recorded.get("epsilon") if recorded else counted
        if counted is None or statement is None or epsilon is None or not math.isfinite(epsilon):
            raise InputError(NO_CLAIM, "privacy", called(victim.mechanism))
        delta = float(str((recorded or statement)["delta"]))
        return cls(float(epsilon), delta, counted, bool(recorded), account, state)

    def curve(self, noise_scale: float = 1.0) -> Curve:
        """All that is claimed, had the noise been so many times what it was said to be."""
        known = profile_of(self.account, self.state, DELTAS, noise_scale)
        more = zip(known, DELTAS, strict=True) if known is not None else ()
        return Curve.of([(self.epsilon_with(noise_scale), self.delta), *more])

    def pair(self, noise_scale: float = 1.0) -> Curve:
        """The recorded pair, with an epsilon so many times smaller, and nothing else."""
        return Curve.of([(self.epsilon / noise_scale, self.delta)])

    def epsilon_with(self, noise_scale: float) -> float:
        """The epsilon at the claim's delta, had the noise been so many times what it was said."""
        if noise_scale != 1 and self.delta > 0:
            known = profile_of(self.account, self.state, (self.delta,), noise_scale)
            if known is not None:
                return known[0]
        return self.epsilon / noise_scale

    def remarks(self) -> list[str]:
        """What a reader should know of the claim."""
        if not self.printed:
            return ["No claim was recorded with the run; the ledger's is audited."]
        if self.ledger > DISAGREES * self.epsilon:
            return [
                f"The ledger counts epsilon {self.ledger:.3g} for the audited training, and the "
                f"run recorded {self.epsilon:.3g}: either the record is wrong, or the canaries "
                "take part more often than any client of the run did."
            ]
        return []
