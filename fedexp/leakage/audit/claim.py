"""The claim that is audited: the one that the run printed, whatever a ledger would say now."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

from fedexp.core.capabilities import called
from fedexp.core.checks import InputError
from fedexp.core.protocols import Account
from fedexp.core.types import State
from fedexp.leakage.audit.canaries import NO_CLAIM
from fedexp.leakage.victim import Victim

DISAGREES = 1.02  # how much more the ledger of the audited training may say without a word


@final
@dataclass(frozen=True)
class Claim:
    """(epsilon, delta) as recorded with the run, beside what the audited training's ledger says."""

    epsilon: float
    delta: float
    ledger: float  # of the audited training, which has canaries in it
    printed: bool  # False: nothing was recorded, and the ledger's epsilon is taken

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
        return cls(float(epsilon), delta, counted, bool(recorded))

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
