"""The audit of a run's claim: train once more with canaries, and guess which of them were in.

The claim is the epsilon that was recorded with the run; the audited training has the run's noise,
clip norm, rounds and sampling rate. The alarm: so many guesses are right that the claim is ruled
out (`one_run`). What sabotage it can see at best is said before it begins (`power`). An honest
mechanism raises it with a probability of at most 1 - confidence, in practice far less. No alarm
proves nothing: a mechanism may be broken where these canaries do not look. `noise_scale` sabotages
the training, to see that the alarm works.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

import numpy as np
from torch import Tensor

from fedexp.core.capabilities import called
from fedexp.core.checks import InputError, at_least, in_range, positive
from fedexp.core.findings import Figure, Findings
from fedexp.core.rng import generator, seed_for
from fedexp.core.types import State
from fedexp.federation.rounds import initial_state, run_rounds
from fedexp.leakage import adversaries
from fedexp.leakage.audit.canaries import NO_CLAIM, CanaryRun, NoisyRows, refuse_hidden_rows
from fedexp.leakage.audit.claim import Claim
from fedexp.leakage.audit.clients import CanaryClients
from fedexp.leakage.audit.examples import example_canaries
from fedexp.leakage.audit.one_run import (
    check_confidence,
    guesses_of,
    one_run_lower_bound,
    one_run_p_value,
)
from fedexp.leakage.audit.power import power
from fedexp.leakage.study import Progress
from fedexp.leakage.victim import Victim
from fedexp.training.steps import NoisySteps


@final
@dataclass(frozen=True)
class OneRunAudit:
    """The study: canaries in one more training, guesses, and a lower bound on epsilon.

    Args:
        canaries: m, each in with probability 1/2.
        guesses: r, how many of them are guessed, at most m; half "in", half "out".
        confidence: of the lower bound.
        noise_scale: factor on the noise that is really added; 1 audits the run as it is.
        strength: of canary examples, in deviations of the pixels; canary clients are always as
            long as the clip norm.
        others: examples of a client that the score of canary examples takes into account.
    """

    canaries: int
    guesses: int
    confidence: float
    noise_scale: float
    strength: float
    others: int

    def __post_init__(self) -> None:
        at_least(2, canaries=self.canaries)
        at_least(1, guesses=self.guesses)
        in_range(1, self.canaries, guesses=self.guesses)
        check_confidence(self.confidence)
        positive(noise_scale=self.noise_scale, strength=self.strength)
        at_least(0, others=self.others)

    def beforehand(self, victim: Victim) -> str:
        """From how many right guesses on the alarm is raised, and what that takes at best."""
        promise = victim.promise
        if not promise or not promise.get("epsilon"):
            return ""
        epsilon, delta = float(promise["epsilon"]), float(promise["delta"])
        needed = self._needed(epsilon, delta)
        if needed is None:
            return (
                f"{self.guesses} right guesses of {self.guesses} could not rule out the recorded "
                f"epsilon {epsilon:.3g}: use more canaries and guesses, or leakage=audit_many_runs"
            )

        def alarm(separation: float, rng: np.random.Generator) -> bool:
            inside = rng.random(self.canaries) < 1 / 2
            scores = rng.standard_normal(self.canaries) + separation * inside
            return self._right(guesses_of(scores, self.guesses), inside) >= needed

        seen = power(alarm, epsilon, delta, generator(victim.seed, "audit_power"))
        return (
            f"the recorded epsilon {epsilon:.3g} is ruled out from {needed} right guesses of "
            f"{self.guesses} on; {seen.sentence()}"
        )

    def _needed(self, epsilon: float, delta: float) -> int | None:
        """The fewest right guesses that rule a claim out; None: not even all of them do."""
        least, most = 0, self.guesses
        if self._bound(most, delta) <= epsilon:
            return None
        while most - least > 1:  # the bound grows with the guesses that are right
            middle = (least + most) // 2
            least, most = (
                (least, middle) if self._bound(middle, delta) > epsilon else (middle, most)
            )
        return most

    def _bound(self, right: int, delta: float) -> float:
        return one_run_lower_bound(self.canaries, self.guesses, right, delta, self.confidence)

    @staticmethod
    def _right(said: np.ndarray, inside: np.ndarray) -> int:
        return int(np.sum((said == 1) & inside) + np.sum((said == -1) & ~inside))

    def __call__(self, victim: Victim, progress: Progress) -> Findings:
        """Train with canaries, and judge.

        Raises:
            InputError: the run makes no claim, or one that canaries in it cannot audit.
        """
        rng = generator(victim.seed, "audit_canaries")
        inside = rng.random(self.canaries) < 1 / 2
        exp = replace(victim.experiment, seed=seed_for(victim.seed, "audit"))
        run = self._with_canaries(replace(victim, experiment=exp), inside, rng)
        scores, spent = _carried_out(run, victim.models[0], progress)
        claim = Claim.of(victim, run.experiment.account, spent)
        epsilon, delta = claim.epsilon, claim.delta

        said = guesses_of(scores, self.guesses)
        right = self._right(said, inside)
        counts = (self.canaries, self.guesses)
        bound, most = self._bound(right, delta), self._bound(self.guesses, delta)
        where = [f"canary {'in' if there else 'out'}" for there in inside]
        pairs = zip(where, scores.tolist(), said.tolist(), strict=True)
        figures = [
            Figure(subject, victim.last_round, i, metric, value)
            for i, (subject, score, guess) in enumerate(pairs)
            for metric, value in (("score", score), ("guess", float(guess)))
        ]
        return Findings(
            figures=figures,
            headline={
                "epsilon_lower_bound": bound,
                "epsilon_claimed": epsilon,
                "epsilon_of_the_ledger": claim.ledger,
                "alarm": float(bound > epsilon),
                "p_value": one_run_p_value(*counts, right, epsilon, delta),
                "canaries": float(self.canaries),
                "guesses": float(self.guesses),
                "right": float(right),
            },
            arrays={"scores_in": scores[inside], "scores_out": scores[~inside]},
            conclusions=[
                *self._conclusions(run, right, bound, most, epsilon, delta),
                *claim.remarks(),
            ],
            adversary=run.adversary,
            adversaries={"": adversaries.AUDITOR},
        )

    def _with_canaries(
        self, victim: Victim, inside: np.ndarray, rng: np.random.Generator
    ) -> CanaryRun:
        exp = victim.experiment
        refuse_hidden_rows(exp.channel)
        if isinstance(exp.trainer, NoisySteps):
            return example_canaries(
                victim, exp.trainer, inside, self.strength, self.others, self.noise_scale, rng
            )
        if isinstance(exp.server.privacy, NoisyRows):
            clients = CanaryClients.settled(victim, exp.server.privacy, len(inside), rng)
            return clients.run(exp.seed, inside, self.noise_scale)
        raise InputError(NO_CLAIM, "privacy", called(victim.mechanism))

    def _conclusions(
        self,
        run: CanaryRun,
        right: int,
        bound: float,
        most: float,
        epsilon: float,
        delta: float,
    ) -> list[str]:
        guessed = (
            f"{right} of {self.guesses} guesses about {self.canaries} canaries were right: epsilon "
            f"is at least {bound:.3g} with {self.confidence:.0%} confidence, and the claim is "
            f"{epsilon:.3g} (delta {delta:g})"
        )
        if bound > epsilon:
            judgement = f"ALARM: the claim is ruled out. {guessed}."
        else:
            judgement = f"No contradiction; a low bound never proves DP. {guessed}."
        sentences = [judgement, f"The canaries: {run.canaries}."]
        if self.noise_scale != 1:
            sentences.append(
                f"Sabotaged on purpose: the noise was multiplied by {self.noise_scale:g}, and the "
                "claim is that of the full noise."
            )
        if most <= epsilon:
            sentences.append(
                f"This audit could not have raised the alarm: {self.guesses} right guesses of "
                f"{self.guesses} would show epsilon {most:.3g}. Use more canaries and guesses."
            )
        return sentences


def _carried_out(run: CanaryRun, start: Tensor, progress: Progress) -> tuple[np.ndarray, State]:
    """(scores `[m]`, the ledger at the end) of the training from `start` `[d]`."""
    exp = run.experiment
    before = state = initial_state(exp, start)
    total = np.zeros(1)
    for state, record in run_rounds(exp, before):
        total = total + run.score(before, state, record).numpy()
        before = state
        progress(state.round / exp.rounds)
    progress(1.0)  # also where max_epsilon ended the run
    return total, state.ledger
