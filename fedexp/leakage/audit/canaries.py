"""Canaries in a run: members that do nothing but make their own presence as visible as it gets.

Each canary is in or out by a fair coin, and the run is trained once with those that are in, through
the run's own code with the run's own noise. What it promises holds for any members, so also for
these: who can tell from what was released which of them were in, more often than the promise
allows, has refuted it. `audit_examples` makes canaries where the unit is an example,
`audit_clients` where it is a client; `audit` guesses and judges.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

from torch import Tensor

from fedexp.core.checks import InputError
from fedexp.core.protocols import Backend, Privacy, Trainer
from fedexp.core.types import Metric, RoundRecord, ServerState
from fedexp.federation.rounds import Experiment
from fedexp.leakage.victim import Victim
from fedexp.privacy.account import PrivacyAccount
from fedexp.privacy.dp_sgd import PrivateSteps
from fedexp.protection.plan import Plan, Protection
from fedexp.protection.protect import protect

Score = Callable[[ServerState, ServerState, RoundRecord], Tensor]
"""(the state before a round, the state after it, its record) -> `[m]` float64, what the round adds
to each canary's score: larger where the canary seems to be in. It knows who was in nowhere."""

NO_CLAIM = (
    "claims no finite epsilon that could be ruled out; needs a run with privacy=dp_sgd, client_dp, "
    "local_gaussian or local_laplace, and with noise"
)


@final
@dataclass(frozen=True)
class Rigged:
    """A run with canaries in it, ready to be trained."""

    experiment: Experiment
    score: Score
    canaries: str  # what they are, a sentence
    adversary: str  # what the scores are made of, in words


@final
@dataclass(frozen=True)
class NoEvaluation:
    """Measures nothing: how good the model of an audit is, is of no interest."""

    def __call__(
        self, backend: Backend, models: Sequence[Tensor], round: int
    ) -> tuple[list[Metric], Tensor | None]:
        """No rows and no predictions."""
        return [], None


def settled(
    victim: Victim, mechanism: Privacy | PrivateSteps, trainer: Trainer, plan: Plan, canaries: int
) -> Protection:
    """The account of the run with canaries, for the noise that the run really had.

    Args:
        victim: the run.
        mechanism: its own, with its noise as given or calibrated.
        trainer: its local training without privacy.
        plan: what is released with the canaries, be they in or out.
        canaries: how many there are.

    Raises:
        InputError: the run promises nothing, or cannot promise it to so many members.
    """
    # Calibrated again, the noise would be another one: that of a larger federation.
    privacy = {**victim.config["privacy"], "target_epsilon": None}
    config = {**victim.config, "privacy": privacy}
    try:
        protection = protect(config, mechanism, victim.experiment.channel, trainer, plan)
    except InputError as refusal:
        raise InputError(
            f"with so many members more the run cannot make its claim; use fewer ({refusal})",
            "canaries",
            canaries,
        ) from refusal
    account = protection.account
    assert isinstance(account, PrivacyAccount)
    once = account.ledger.charge(account.init(), account.price.at_most(range(len(plan.sizes))))
    if not math.isfinite(account.epsilon(once)):
        raise InputError(NO_CLAIM, "privacy", victim.config["privacy"]["_target_"])
    return protection
