"""What an adversary that knows the server may try before it sends: rows, on the server as it is.

    step(rows)      what validation, mixing and rule would make of them, before noise
    outcome(rows)   the step, and the mean loss on the validation part of the model after that round

Nothing of a trial lasts: the server's state is left as it is, and its draws are guessed, from
streams of the adversary's own. What the adversary knows of the server is the attack's to say
(`fedexp.core.capabilities.TriesTheServer`); an attack that says nothing knows the validation of
updates, and takes the detector to let everybody pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, final

import numpy as np
from torch import Tensor

from fedexp.core.capabilities import TriesTheServer, as_received
from fedexp.core.protocols import Attack, Backend, Channel, Task
from fedexp.core.round_record import ServerState
from fedexp.core.stateless import Stateless
from fedexp.core.types import Outcome, State, Updates, Verdict
from fedexp.federation.form import WrongForm, no_numbers
from fedexp.federation.server import Server, Streams
from fedexp.federation.update_validation import NoValidation


class Judge(Protocol):
    """How bad models are, to the adversary's mind."""

    def __call__(self, backend: Backend, models: Sequence[Tensor]) -> float:
        """More is worse; not finite where a model's answers are not."""


@final
class NoJudge:
    """That of an attack that measures nothing."""

    def __call__(self, backend: Backend, models: Sequence[Tensor]) -> float:
        """They are all alike."""
        return 0.0


@final
@dataclass(frozen=True)
class LossOnValidation:
    """The mean over the models.

    Args:
        task: what labels mean.
        y: the labels of the validation part.
    """

    task: Task
    y: Tensor

    def __call__(self, backend: Backend, models: Sequence[Tensor]) -> float:
        """Their mean loss on it."""
        logits = backend.evaluate(models, "validation")
        return sum(float(self.task.loss(each, self.y)) for each in logits) / len(models)


@final
@dataclass(frozen=True)
class Trial:
    """The server of one round, to be tried out.

    Args:
        server: as far as the adversary knows it.
        state: before the round.
        channel: of the run.
        sent: what the clients are about to send; the adversary puts other rows in.
        unsent: what each client kept of what it sent earlier (`Remembers`).
        stream: of the round, by purpose.
        loss_of: of a state's models.
    """

    server: Server
    state: ServerState
    channel: Channel
    sent: Updates
    unsent: Sequence[State]
    stream: Streams
    loss_of: Callable[[Tensor], float]

    def __call__(self, rows: Tensor) -> Tensor:
        """The step `[D]`, before noise."""
        return self.server.rule(self._received(rows), self.state, self.stream("guess"))

    def outcome(self, rows: Tensor) -> Outcome:
        """Of the round, where it moves the model; else the loss is that of the model as it is."""
        after, receipt = self.server(self._received(rows), self.state, self._guessed)
        return Outcome(receipt.step, self.loss_of(after.params))

    def _received(self, rows: Tensor) -> Updates:
        there = self.sent.matrix
        if wrong := no_numbers(rows, there.shape, there.dtype, "rows"):
            raise WrongForm(wrong.replace("return", "try"), "attack", "rule(rows)")
        arriving = self.sent.with_matrix(rows)
        return as_received(self.channel, arriving, self.unsent, self.stream("channel"))

    def _guessed(self, purpose: str) -> np.random.Generator:
        return self.stream(f"guess of {purpose}")


def known_server(server: Server, attack: Attack) -> Server:
    """The server as the attack knows it: all of it but what it does not declare to know."""
    if not isinstance(attack, TriesTheServer):
        return replace(server, detector=_Trusting())
    return replace(
        server,
        detector=server.detector if attack.knows_detector else _Trusting(),
        update_validation=server.update_validation if attack.knows_validation else NoValidation(),
    )


class _Trusting(Stateless):
    """A detector that lets everybody pass."""

    def __call__(
        self, updates: Updates, state: State, rng: np.random.Generator
    ) -> tuple[Verdict, State]:
        return Verdict.no_opinion(len(updates)), state
