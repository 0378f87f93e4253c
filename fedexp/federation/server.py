"""The server's half of a round: from the rows that arrived to the step that is taken.

    usable   <- rows that are finite, of the right shape, not absurdly long     (update_validation)
    bounded  <- usable rows, clipped where a mechanism counts on it             (privacy)
    trusted  <- bounded rows without those that the detector flags              (detector)
    mixed    <- trusted rows averaged with their neighbours, bucketed, clipped  (pre_aggregation)
    step     <- rule(mixed)                                                     (aggregator)
    released <- step, with noise where the server adds it                       (privacy)
    params   <- optimizer(params, released), where the algorithm has taken      (algorithm,
                what is its own out of the step                                  server_optimizer)

Rows are `[n, D]`: the delta and what else the algorithm sends. All but the optimiser work on the
whole rows, so that whatever leaves a client is checked, bounded, aggregated and noised alike.

A round that fewer than `min_clients` trusted rows reach, or whose rows the rule refuses (Krum with
fewer than 2f + 3 of them) or the detector, moves nothing and says why. Not so where the server adds
the noise: that nobody was there is what noise has to hide, and a step of noise alone is released.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import final

import numpy as np
import torch
from torch import Tensor

from fedexp.core.capabilities import counted_clients, does_nothing
from fedexp.core.checks import InputError
from fedexp.core.protocols import (
    Aggregator,
    Algorithm,
    Detector,
    PreAggregator,
    Privacy,
    ServerOptimizer,
    UpdateValidation,
)
from fedexp.core.round_model import Architecture, NoArchitecture
from fedexp.core.round_record import ServerState
from fedexp.core.types import State, Updates, Verdict, row_size
from fedexp.core.untouched import seen
from fedexp.federation.form import (
    ACTED,
    IN_PLACE,
    WrongForm,
    no_complaints,
    no_mixture,
    no_model,
    no_opinion,
    no_own_step,
    no_step,
    refuse_form,
)

Streams = Callable[[str], np.random.Generator]


@dataclass(frozen=True)
class Receipt:
    """What became of the rows of a round."""

    complaints: tuple[str, ...]  # for each row that arrived, "" if it could be used
    scored: tuple[int, ...]  # the clients that the detector looked at
    verdict: Verdict  # on them
    step: Tensor  # [d] of the model, zero in a round that moved nothing
    skipped: str  # why the round moved nothing; "" if it did


@final
@dataclass(frozen=True)
class Server:
    """Validation of updates, privacy, detector, mixing, rule, algorithm and optimiser."""

    update_validation: UpdateValidation
    privacy: Privacy
    detector: Detector
    pre_aggregation: tuple[PreAggregator, ...]
    aggregator: Aggregator
    optimizer: ServerOptimizer
    min_clients: int  # a round that fewer clients answer moves nothing
    algorithm: Algorithm
    n_clients: int  # of the federation, to know what share of it answered
    architecture: Architecture | NoArchitecture = field(default_factory=NoArchitecture)

    def rule(self, updates: Updates, state: ServerState, rng: np.random.Generator) -> Tensor:
        """The step `[D]` that these rows would make, before noise; for who wants to guess it.

        The detector, which a client cannot try out, is taken to let all of them pass.
        """
        usable = _usable(updates, self._complaints(updates, state))
        bounded = self.privacy.on_receipt(usable, state.privacy)
        return self._rule(bounded, state, rng)[0]

    def __call__(
        self, received: Updates, state: ServerState, rng: Streams
    ) -> tuple[ServerState, Receipt]:
        """The server's next state (the round is not counted yet) and what became of the rows."""
        d = state.params.shape[-1]
        complaints = self._complaints(received, state)
        usable = _usable(received, complaints)
        bounded = self.privacy.on_receipt(usable, state.privacy)
        verdict, detector, refused = Verdict.no_opinion(len(bounded)), state.detector, ""
        if len(bounded):
            shown = replace(bounded, model=self.architecture.at(state.params))
            before = seen(shown.matrix, shown.num_examples)
            try:
                told = self.detector(shown, detector, rng("detector"))
            except InputError as refusal:  # too few rows for it have come
                refused = f"the detector refused: {refusal}"
            else:
                changed = seen(shown.matrix, shown.num_examples) != before
                wrong = IN_PLACE if changed else no_opinion(told, len(shown))
                refuse_form(wrong, "detector", self.detector)
                verdict, detector = told
                # Noise on a sum counts on that word: nobody's row decides what another's counts.
                acted = does_nothing(self.detector) and not bool((verdict.trust == 1).all())
                refuse_form(ACTED if acted else "", "detector", self.detector)
        trusted = _trusted(bounded, verdict)
        whole, aggregator, skipped = self._step(trusted, state, rng, refused)
        step = whole[..., :d]
        after = replace(state, detector=detector, failed_rounds=state.failed_rounds + 1)
        if not skipped:
            noise = rng("server_noise")
            whole, privacy = self.privacy.on_step(whole, trusted, state.privacy, noise)
            share = counted_clients(self.privacy, trusted.clients) / self.n_clients
            left = self.algorithm.server_step(whole, state.algorithm, share)
            refuse_form(no_own_step(left, whole, d), "algorithm", self.algorithm)
            step, algorithm = left
            before = seen(state.params, step)
            moved = self.optimizer(state.params, step, state.optimizer)
            wrong = no_model(moved, state.params, step, seen(state.params, step) != before)
            refuse_form(wrong, "server_optimizer", self.optimizer)
            params, optimizer = moved
            after = replace(
                after,
                params=params,
                optimizer=optimizer,
                algorithm=algorithm,
                aggregator=aggregator,
                privacy=privacy,
                failed_rounds=0,
            )
        return after, Receipt(complaints, usable.client_ids, verdict, step, skipped)

    def _complaints(self, received: Updates, state: ServerState) -> tuple[str, ...]:
        row = row_size(self.algorithm.sends, state.params.shape[-1])
        # Noise on the sum is for one row a client: nobody's may decide whether another's is used.
        alone = self.privacy.releases_every_round
        parts = [received.only(k) for k in range(len(received))] if alone else [received]
        before = seen(received.matrix, received.num_examples)
        said = [self.update_validation(rows, row) for rows in parts]
        in_place = seen(received.matrix, received.num_examples) != before
        for rows, complaints in zip(parts, said, strict=True):
            wrong = IN_PLACE if in_place else no_complaints(complaints, len(rows))
            refuse_form(wrong, "update_validation", self.update_validation)
        return tuple(complaint for complaints in said for complaint in complaints)

    def _step(
        self, trusted: Updates, state: ServerState, rng: Streams, refused: str
    ) -> tuple[Tensor, State, str]:
        *models, d = state.params.shape
        nothing = state.params.new_zeros(*models, row_size(self.algorithm.sends, d))
        if refused:
            return nothing, state.aggregator, refused
        if not len(trusted) and self.privacy.releases_every_round:
            return nothing, state.aggregator, ""
        if len(trusted) < self.min_clients:
            needed = f"{len(trusted)} of the {self.min_clients} updates needed (min_clients)"
            return nothing, state.aggregator, f"it had {needed}"
        try:
            step, aggregator = self._rule(trusted, state, rng("rule"))
        except WrongForm:
            raise
        except InputError as refusal:  # too few rows for the rule are left
            return nothing, state.aggregator, f"the rule refused: {refusal}"
        return step, aggregator, ""

    def _rule(
        self, updates: Updates, state: ServerState, rng: np.random.Generator
    ) -> tuple[Tensor, State]:
        """Mix and aggregate: the step `[D]` and the aggregator's next state."""
        for mix in self.pre_aggregation:
            before = seen(updates.matrix, updates.num_examples)
            mixed = mix(updates, rng)
            in_place = seen(updates.matrix, updates.num_examples) != before
            refuse_form(
                IN_PLACE if in_place else no_mixture(mixed, updates), "pre_aggregation", mix
            )
            updates = mixed
        before = seen(updates.matrix, updates.num_examples)
        made = self.aggregator(updates, state.aggregator, rng)
        shape = (*state.params.shape[:-1], row_size(self.algorithm.sends, state.params.shape[-1]))
        in_place = seen(updates.matrix, updates.num_examples) != before
        wrong = IN_PLACE if in_place else no_step(made, shape, updates.matrix)
        refuse_form(wrong, "aggregator", self.aggregator)
        return made


def _usable(received: Updates, complaints: Sequence[str]) -> Updates:
    return received.select(torch.tensor([not c for c in complaints], dtype=torch.bool))


def _trusted(usable: Updates, verdict: Verdict) -> Updates:
    """The rows that keep some of their weight, with that weight."""
    trust = verdict.trust
    if bool((trust == 1).all()):
        return usable
    weighed = replace(usable, num_examples=usable.num_examples * trust)
    return weighed.select(trust > 0)
