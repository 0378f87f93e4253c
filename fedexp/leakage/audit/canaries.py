"""Canaries in a run: members that do nothing but make their own presence as visible as it gets.

Each canary is in or out by a fair coin, and the run is trained once with those that are in, through
the run's own code with the run's own noise. What it promises holds for any members, so also for
these: who can tell from what was released which of them were in, more often than the promise
allows, has refuted it. `gradients` and `examples` make canaries where the unit is an
example, `clients` where it is a client; `study` guesses and judges.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, final, runtime_checkable

from torch import Tensor

from fedexp.core.capabilities import does_nothing
from fedexp.core.checks import InputError
from fedexp.core.metric import Metric
from fedexp.core.protection import Combination, Mechanism, Plan, Protection
from fedexp.core.protocols import Backend, Channel, Privacy, Trainer
from fedexp.core.round_record import RoundRecord, ServerState
from fedexp.core.text import called
from fedexp.federation.rounds import Experiment
from fedexp.leakage.audit.measured_noise import Looks
from fedexp.leakage.audit.sight import Sight
from fedexp.leakage.victim import Victim
from fedexp.privacy.account import NoAccount
from fedexp.privacy.none import NoPrivacy

Score = Callable[[ServerState, ServerState, RoundRecord], Tensor]
"""(the state before a round, the state after it, its record) -> `[m]` float64, what the round adds
to each canary's score: larger where the canary seems to be in. It knows who was in nowhere."""

NO_CLAIM = (
    "claims no finite epsilon of what is trained or sent that an audit could rule out; needs a run "
    "with privacy=dp_sgd, client_dp, local_gaussian or local_laplace, and with noise"
)


def refuse_hidden_rows(channel: Channel) -> None:
    """Raise InputError for a channel behind which no canary's own row is to be seen."""
    if not does_nothing(channel):
        raise InputError(
            "hides what the canaries' scores are made of; audits need channel=plain",
            "channel",
            called(channel),
        )


def refuse_what_cannot_be_audited(parts: Combination) -> None:
    """Raise InputError, before a run is trained, for one that no audit could be made of."""
    refuse_hidden_rows(parts.channel)
    if does_nothing(parts.privacy):
        raise InputError(NO_CLAIM, "privacy", called(parts.privacy))


@final
@dataclass(frozen=True)
class CanaryRun:
    """A run with canaries in it, ready to be trained."""

    experiment: Experiment
    score: Score
    sight: Sight  # what the scores are like, at best
    canaries: str  # what they are, a sentence
    adversary: str  # what the scores are made of, in words
    looks: Looks | None = None  # at the noise itself, where it can be seen by itself
    n_looks: int = 0  # in all rounds


@final
@dataclass(frozen=True)
class NoEvaluation:
    """Measures nothing: how good the model of an audit is, is of no interest."""

    def __call__(
        self, backend: Backend, models: Sequence[Tensor], round: int
    ) -> tuple[list[Metric], Tensor | None]:
        """No rows and no predictions."""
        return [], None


@runtime_checkable
class NoisyRows(Privacy, Protocol):
    """What a mechanism does to clients' rows, or to their sum, as an audit has to know it."""

    releases_every_round: ClassVar[bool]  # whether the noise is in the step, not in the rows
    row_order: ClassVar[Literal[1, 2]]  # of the norm that bounds a row

    @property
    def row_bound(self) -> float:
        """The largest norm of a row before noise."""

    def with_noise(self, scale: float) -> Privacy:
        """The same with its noise multiplied."""

    def for_members(self, n: int, n_all: int) -> Privacy:
        """The same for `n_all` clients in the place of `n`."""


@runtime_checkable
class ClaimsForMembers(Protocol):
    """A mechanism, its noise settled, that can be asked about a larger federation."""

    def for_members(self, n: int, n_all: int) -> Mechanism:
        """With the same noise, and `n_all` clients in the place of `n`."""


def settled(
    victim: Victim, mechanism: Mechanism, trainer: Trainer, plan: Plan, canaries: int
) -> Protection:
    """The account of the run with canaries, for the noise that the run really had.

    Args:
        victim: the run.
        mechanism: its own, with the noise settled.
        trainer: its local training without privacy.
        plan: what is released with the canaries, be they in or out.
        canaries: how many there are.

    Raises:
        InputError: the run promises nothing, or cannot promise it to so many members.
    """
    bare = Protection(trainer, NoPrivacy(), victim.experiment.channel, NoAccount(), mechanism)
    try:
        protection = mechanism.protect(plan, bare)
    except InputError as refusal:
        raise InputError(
            f"with so many members more the run cannot make its claim; use fewer ({refusal})",
            "canaries",
            canaries,
        ) from refusal
    account = protection.account
    claimed = account.epsilon(account.at_most(account.init(), range(len(plan.sizes))))
    if claimed is None or not math.isfinite(claimed):
        raise InputError(NO_CLAIM, "privacy", called(mechanism))
    return protection
