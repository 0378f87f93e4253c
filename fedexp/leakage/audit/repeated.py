"""The audit by many trainings: one canary client at its worst, in half of them, and a threshold.

Where one training holds many canaries, each of them is blurred by the others and by the data, and
only gross sabotage shows. Here the run's rounds are repeated with one canary, as often with it as
without it, and with nothing else going on: the other clients train nothing. Every round the canary
sends a vector of the clip norm in its direction, with a sign that changes from round to round, so
that noise which is drawn once and used again cancels. Where the size of a cohort is fixed and the
claim counts on no sampling, the others send the opposite, so that a divisor that follows the number
of clients shows; else they send zeros. The score is the signed sum, over the rounds, of the model's
movement along the direction (of the canary's row, where rows are noised).

    epsilon >= the bound of `many_runs`, of any mechanism
    epsilon >= that of a Gaussian with mu = Phi^-1(1 - FPR_u) - Phi^-1(FNR_u),
               where the account counts Gaussian noise in full (no sampling is counted on)

with upper limits on the error rates. The second is by far the sharper one, and audits the claim
that the noise is Gaussian and as large as said.

Sources: Nasr, Songi, Thakurta, Papernot and Carlini, "Adversary Instantiation", IEEE S&P 2021 (many
runs, the worst case in every step); Nasr et al., "Tight Auditing of Differentially Private Machine
Learning", USENIX Security 2023 (the bound by the Gaussian's trade-off); Dong, Roth and Su,
"Gaussian Differential Privacy", JRSS B 2022 (mu).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np
import torch
from torch import Tensor

from fedexp.core.capabilities import does_nothing, sampling_of
from fedexp.core.checks import InputError, at_least, positive
from fedexp.core.findings import Figure, Findings
from fedexp.core.protection import Combination
from fedexp.core.protocols import Trainer
from fedexp.core.rng import generator, seed_for
from fedexp.core.text import called
from fedexp.core.types import ClientTask, State, Updates
from fedexp.federation.rounds import initial_state, run_rounds
from fedexp.leakage import adversaries
from fedexp.leakage.audit.canaries import (
    NO_CLAIM,
    CanaryRun,
    NoisyRows,
    refuse_hidden_rows,
    refuse_what_cannot_be_audited,
)
from fedexp.leakage.audit.claim import Claim
from fedexp.leakage.audit.clients import LONG, CanaryClients, Directions
from fedexp.leakage.audit.f_dp import check_confidence
from fedexp.leakage.audit.many_runs import gaussian_lower_bound, many_runs_lower_bound
from fedexp.leakage.audit.power import power
from fedexp.leakage.study import Progress
from fedexp.leakage.victim import Victim
from fedexp.privacy.accounting import gaussian_epsilon

ONLY_CLIENTS = (
    "has canaries that are clients, and the noise of this run is in every step of a client; use "
    "leakage=audit"
)
Bound = Callable[[np.ndarray, np.ndarray, np.random.Generator], float]
"""(scores with, scores without, rng) -> the lower bound on epsilon."""


@final
@dataclass(frozen=True)
class WorstCase:
    """A backend that trains nothing: a canary client at its worst, the last one, and the others."""

    n_clients: int  # without the canary
    directions: Directions
    length: float  # of what the canary sends
    others: float  # of what the others send

    def train(self, trainer: Trainer, tasks: Sequence[ClientTask]) -> Updates:
        """A row a task, along the canary's direction."""
        ids = tuple(task.client_id for task in tasks)
        lengths = [
            sign_of(task.round) * (self.length if c >= self.n_clients else self.others)
            for c, task in zip(ids, tasks, strict=True)
        ]
        d = len(tasks[0].params) if tasks else self.directions.coordinates.numel()
        first = torch.zeros(len(ids), dtype=torch.int64)
        return Updates(
            matrix=self.directions.rows(first, torch.tensor(lengths), d),
            client_ids=ids,
            num_examples=torch.ones(len(ids), dtype=torch.float64),
            metrics=tuple({} for _ in ids),
            kept=tuple({} for _ in ids),
        )

    def evaluate(self, models: Sequence[Tensor], split: str) -> list[Tensor]:
        """Nothing is measured."""
        return []

    def close(self) -> None:
        """Nothing to give back."""


def sign_of(round: int) -> float:
    """Of what is sent in a round: 1, -1, 1, ..."""
    return 1.0 if round % 2 == 0 else -1.0


@final
@dataclass(frozen=True)
class ManyRunsAudit:
    """The study: so many trainings with the canary, as many without, and a lower bound on epsilon.

    Args:
        runs: trainings of either kind; n of them cannot show more than about ln(n / 7), or mu of
            about 4 where the noise is Gaussian.
        confidence: of the lower bound.
        noise_scale: factor on the noise that is really added; 1 audits the run as it is.
    """

    runs: int
    confidence: float
    noise_scale: float

    def __post_init__(self) -> None:
        at_least(20, runs=self.runs)
        check_confidence(self.confidence)
        positive(noise_scale=self.noise_scale)

    def refuse(self, parts: Combination) -> None:
        """Raise InputError for a channel that hides the canaries, or parts that claim nothing."""
        refuse_what_cannot_be_audited(parts)

    def beforehand(self, victim: Victim) -> str:
        """The least sabotage that so many runs show, at best."""
        victim = victim.as_it_ran
        promise, privacy = victim.promise, self._privacy(victim)
        if not promise or not promise.get("epsilon"):
            return ""
        epsilon, delta = float(promise["epsilon"]), float(promise["delta"])
        rng = generator(victim.seed, "audit_power")
        clients = CanaryClients.settled(victim, privacy, 1, rng)
        bound = self._bound(clients, delta)

        sight = clients.run(victim.seed, np.array([True]), 1.0).sight
        inside = np.repeat([True, False], self.runs)

        def alarm(share: float, rng: np.random.Generator) -> bool:
            scores = sight(inside, share, rng)
            return bound(scores[: self.runs], scores[self.runs :], rng) > epsilon

        return f"audits the recorded epsilon {epsilon:.3g}; " + (power(alarm, rng).sentence())

    def __call__(self, victim: Victim, progress: Progress) -> Findings:
        """Repeat the rounds with the canary and without it, and judge.

        Raises:
            InputError: the run makes no claim, or one that a canary client cannot audit.
        """
        victim = victim.as_it_ran
        rng = generator(victim.seed, "audit_many_runs")
        clients = CanaryClients.settled(victim, self._privacy(victim), 1, rng)
        scores, run, spent = [], None, None
        for number in range(2 * self.runs):
            seed = seed_for(victim.seed, "audit_run", number)
            inside = np.array([number % 2 == 0])
            run = self._worst_case(clients, clients.run(seed, inside, self.noise_scale), inside)
            score, spent = _carried_out(run, victim.models[0])
            scores.append(score)
            progress((number + 1) / (2 * self.runs))
        assert run is not None
        assert spent is not None
        claim = Claim.of(victim, run.experiment.account, spent)
        with_it, without = np.array(scores[::2]), np.array(scores[1::2])
        bound = self._bound(clients, claim.delta)(with_it, without, rng)
        figures = [
            Figure(f"canary {'out' if i % 2 else 'in'}", victim.last_round, i // 2, "score", score)
            for i, score in enumerate(scores)
        ]
        return Findings(
            figures=figures,
            headline={
                "epsilon_lower_bound": bound,
                "epsilon_claimed": claim.epsilon,
                "epsilon_of_the_ledger": claim.ledger,
                "alarm": float(bound > claim.epsilon),
                "runs": float(self.runs),
            },
            arrays={"scores_in": with_it, "scores_out": without},
            conclusions=[*self._conclusions(clients, bound, claim), *claim.remarks()],
            adversary=run.adversary + " It knows what all the others send.",
            adversaries={"": adversaries.AUDITOR},
        )

    def _privacy(self, victim: Victim) -> NoisyRows:
        exp = victim.experiment
        refuse_hidden_rows(exp.channel)
        privacy = exp.server.privacy
        if not isinstance(privacy, NoisyRows):
            reason = NO_CLAIM if does_nothing(victim.mechanism) else ONLY_CLIENTS
            raise InputError(reason, "privacy", called(victim.mechanism))
        return privacy

    def _worst_case(self, clients: CanaryClients, run: CanaryRun, inside: np.ndarray) -> CanaryRun:
        exp = clients.victim.experiment
        said = sampling_of(exp.sampler, exp.n_clients)
        fixed = said is not None and said.kind == "fixed_size" and clients.sees_turns
        others = -LONG * clients.privacy.row_bound if fixed and clients.central else 0.0
        length = float(clients.lengths(inside)[0])
        backend = WorstCase(exp.n_clients, clients.directions, length, others)
        return replace(run, experiment=replace(run.experiment, backend=backend))

    def _bound(self, clients: CanaryClients, delta: float) -> Bound:
        def any_mechanism(
            with_it: np.ndarray, without: np.ndarray, rng: np.random.Generator
        ) -> float:
            return many_runs_lower_bound(with_it, without, delta, self.confidence, rng)

        def gaussian(with_it: np.ndarray, without: np.ndarray, rng: np.random.Generator) -> float:
            mu = gaussian_lower_bound(with_it, without, self.confidence, rng)
            return gaussian_epsilon(1 / mu, delta) if mu > 0 else 0.0

        return gaussian if _counts_gaussian_noise_in_full(clients) else any_mechanism

    def _conclusions(self, clients: CanaryClients, bound: float, claim: Claim) -> list[str]:
        how = "Gaussian noise" if _counts_gaussian_noise_in_full(clients) else "any mechanism"
        found = (
            f"{self.runs} runs with the canary and {self.runs} without: epsilon is at least "
            f"{bound:.3g} with {self.confidence:.0%} confidence (the bound for {how}), and the "
            f"claim is {claim.epsilon:.3g} (delta {claim.delta:g})"
        )
        judgement = (
            f"ALARM: the claim is ruled out. {found}."
            if bound > claim.epsilon
            else f"No contradiction; a low bound never proves DP. {found}."
        )
        if self.noise_scale == 1:
            return [judgement]
        return [
            judgement,
            f"Sabotaged on purpose: the noise was multiplied by {self.noise_scale:g}, and the "
            "claim is that of the full noise.",
        ]


def _counts_gaussian_noise_in_full(clients: CanaryClients) -> bool:
    return clients.sees_turns and clients.privacy.row_order == 2


def _carried_out(run: CanaryRun, start: Tensor) -> tuple[float, State]:
    """(the canary's score, the ledger at the end) of one training from `start` `[d]`."""
    exp = run.experiment
    before = state = initial_state(exp, start)
    score = 0.0
    for state, record in run_rounds(exp, before):
        score += sign_of(before.round) * float(run.score(before, state, record)[0])
        before = state
    return score, state.ledger
