"""The audit of a run's claim: train once more with canaries, and guess which of them were in.

The claim is the epsilon that was recorded with the run, and the whole curve that its account stands
for (`claim`); the audited training has the run's noise, clip norm, rounds and sampling rate. The
alarm: so many guesses are right that the curve is ruled out (`f_dp`), or there was less noise than
is claimed, where that can be seen by itself (`measured_noise`, with a fifth of the level).
What sabotage it can see at best is said before it begins (`power`). An honest mechanism raises it
with a probability of at most 1 - confidence. No alarm proves nothing: a mechanism may be broken
where these canaries do not look. `noise_scale` sabotages the training, to see that the alarm works.

Two lower bounds are reported. `epsilon_lower_bound` supposes the claimed mechanism with some other
noise: the epsilon of the least noise that is ruled out, by guesses or, if it is too little, by
looking at it. `epsilon_lower_bound_any_mechanism` supposes nothing: the largest (epsilon, delta)
that is ruled out as a claim of its own; where epsilon is above a few it says little. Either is
above the claim only if there is an alarm.

Sources: Steinke, Nasr and Jagielski, "Privacy Auditing with One (1) Training Run", NeurIPS 2023;
Mahloujifar, Melis and Chaudhuri, "Auditing f-Differential Privacy in One Run", ICML 2025; those of
the canaries stand with them (`examples`, `gradients`, `clients`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np
from torch import Tensor

from fedexp.core.checks import InputError, at_least, in_range, one_of, positive
from fedexp.core.findings import Figure, Findings
from fedexp.core.protection import Combination
from fedexp.core.rng import generator, seed_for
from fedexp.core.text import called
from fedexp.core.types import State
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
from fedexp.leakage.audit.clients import CanaryClients
from fedexp.leakage.audit.examples import example_canaries
from fedexp.leakage.audit.f_dp import (
    Guessed,
    check_confidence,
    fewest_right,
    guessed,
    guesses_of,
)
from fedexp.leakage.audit.gradients import NoisyGradients, gradient_canaries
from fedexp.leakage.audit.measured_noise import MeasuredNoise, made_up
from fedexp.leakage.audit.power import power
from fedexp.leakage.audit.sight import spent_as_planned
from fedexp.leakage.study import Progress
from fedexp.leakage.victim import Victim

GRADIENT, IMAGE = "gradient", "image"
OF_NOISE = 0.2  # share of the level: a look at it sees a hundredth less with any
MANY, FEW = 1000, 200  # canaries that cost next to nothing, and that train or send


@final
@dataclass(frozen=True)
class OneRunAudit:
    """The study: canaries in one more training, guesses, and lower bounds on epsilon.

    Args:
        canary: of DP-SGD: "gradient" (put into the steps) or "image" (trained on). Where the unit
            is a client, canaries are clients, and this changes nothing.
        canaries: m, each in with probability 1/2; None: 1000 gradients, or 200 of what is dearer.
        guesses: shares of the canaries that are guessed, half of them "in" and half "out"; every
            share is a test, and all of them together have the confidence.
        confidence: of the alarm and of the lower bounds.
        noise_scale: factor on the noise that is really added; 1 audits the run as it is.
        strength: of canary images, in deviations of the pixels; all others are as long as the clip
            norm.
        others: examples of a client that the score of canary images takes into account.
    """

    canary: str
    canaries: int | None
    guesses: Sequence[float]
    confidence: float
    noise_scale: float
    strength: float
    others: int

    def __post_init__(self) -> None:
        one_of((GRADIENT, IMAGE), canary=self.canary)
        if self.canaries is not None:
            at_least(2, canaries=self.canaries)
        check_confidence(self.confidence)
        positive(noise_scale=self.noise_scale, strength=self.strength)
        at_least(0, others=self.others)
        shares = "needs a list of shares of the canaries, each above 0 and at most 1"
        if isinstance(self.guesses, int | float | str) or not self.guesses:
            raise InputError(shares, "guesses", self.guesses)
        for share in self.guesses:
            in_range(0, 1, guesses=share)
            if share == 0:
                raise InputError(shares, "guesses", share)

    def refuse(self, parts: Combination) -> None:
        """Raise InputError for a channel that hides the canaries, or parts that claim nothing."""
        refuse_what_cannot_be_audited(parts)

    def beforehand(self, victim: Victim) -> str:
        """From how many right guesses on the alarm is raised, and what that takes at best."""
        promise = victim.promise
        if not promise or not promise.get("epsilon"):
            return ""
        run, inside = self._planned(victim)
        exp, m = run.experiment, len(inside)
        claim = Claim.of(victim, exp.account, spent_as_planned(exp))
        curve, counts = claim.curve(), self._counts(m)
        level, of_noise = self._levels(run)
        needed = [fewest_right(curve, m, g, level / len(counts)) for g in counts]
        enough = [(g, n) for g, n in zip(counts, needed, strict=True) if n is not None]
        if not enough and not run.n_looks:
            return (
                f"no number of right guesses about {m} canaries could rule out the recorded "
                f"epsilon {claim.epsilon:.3g}: use more canaries, or leakage=audit_many_runs"
            )

        def alarm(share: float, rng: np.random.Generator) -> bool:
            if made_up(share, run.n_looks, of_noise, rng).alarm:
                return True
            inside = rng.random(m) < 1 / 2
            scores, truth = run.sight(inside, share, rng), np.where(inside, 1, -1)
            return any(np.sum(guesses_of(scores, g) == truth) >= n for g, n in enough)

        tests = [f"{' or '.join(f'{n} right of {g}' for g, n in enough)} guesses"] if enough else []
        if run.n_looks:
            tests.append(f"too little noise in {run.n_looks:,} looks")
        seen = power(alarm, generator(victim.seed, "audit_power"))
        return (
            f"the recorded epsilon {claim.epsilon:.3g} is ruled out by {' or '.join(tests)} about "
            f"{m} canaries; {seen.sentence()}"
        )

    def __call__(self, victim: Victim, progress: Progress) -> Findings:
        """Train with canaries, and judge.

        Raises:
            InputError: the run makes no claim, or one that canaries in it cannot audit.
        """
        outcome = self.trained(victim, progress)
        run, inside, scores = outcome.run, outcome.inside, outcome.scores
        found, claim, noise = outcome.guessed, outcome.claim, outcome.noise
        verdict = outcome.verdict
        where = [f"canary {'in' if there else 'out'}" for there in inside]
        figures = [
            Figure(subject, victim.last_round, i, "score", score)
            for i, (subject, score) in enumerate(zip(where, scores.tolist(), strict=True))
        ]
        return Findings(
            figures=figures,
            headline={
                "epsilon_lower_bound": verdict.bound,
                "epsilon_lower_bound_any_mechanism": verdict.of_any_mechanism,
                "epsilon_claimed": claim.epsilon,
                "epsilon_of_the_ledger": claim.ledger,
                "alarm": float(verdict.alarm),
                "p_value": verdict.p_value,
                "canaries": float(len(inside)),
                **{f"right_of_{guesses}_guesses": float(right) for guesses, right in found.counts},
                **({"noise": noise.share, "noise_at_most": noise.at_most} if noise else {}),
            },
            arrays={"scores_in": scores[inside], "scores_out": scores[~inside]},
            conclusions=[*self._conclusions(outcome, verdict), *claim.remarks()],
            adversary=run.adversary,
            adversaries={"": adversaries.AUDITOR},
        )

    def trained(self, victim: Victim, progress: Progress) -> Outcome:
        """Train with canaries, and guess.

        Raises:
            InputError: as the study.
        """
        run, inside = self._planned(victim)
        Claim.of(victim, run.experiment.account, spent_as_planned(run.experiment))  # or refuse now
        level, of_noise = self._levels(run)
        scores, seen, spent = _carried_out(run, victim.models[0], progress)
        claim = Claim.of(victim, run.experiment.account, spent)
        found = guessed(scores, inside, self._counts(len(inside)), level)
        noise = MeasuredNoise(*seen, of_noise) if run.looks else None
        return Outcome(run, inside, scores, found, noise, claim)

    def _levels(self, run: CanaryRun) -> tuple[float, float]:
        """Of the guesses, and of the look at the noise where there is one; together the whole."""
        of_noise = OF_NOISE * (1 - self.confidence) if run.looks else 0.0
        return 1 - self.confidence - of_noise, of_noise

    def _counts(self, canaries: int) -> tuple[int, ...]:
        """The numbers of guesses, which no score has a say in."""
        return tuple(sorted({max(1, round(share * canaries)) for share in self.guesses}))

    def _planned(self, victim: Victim) -> tuple[CanaryRun, np.ndarray]:
        """The training with canaries, and which of them are in: `[m]` bool."""
        victim = victim.as_it_ran
        exp = victim.experiment
        refuse_hidden_rows(exp.channel)
        exp = replace(exp, seed=seed_for(victim.seed, "audit"))
        victim, rng = replace(victim, experiment=exp), generator(victim.seed, "audit_canaries")
        examples = isinstance(exp.trainer, NoisyGradients)
        m = self.canaries or (MANY if examples and self.canary == GRADIENT else FEW)
        inside = rng.random(m) < 1 / 2
        if isinstance(exp.trainer, NoisyGradients):
            if self.canary == GRADIENT:
                run = gradient_canaries(victim, exp.trainer, inside, self.noise_scale, rng)
            else:
                run = example_canaries(
                    victim, exp.trainer, inside, self.strength, self.others, self.noise_scale, rng
                )
            return run, inside
        if isinstance(exp.server.privacy, NoisyRows):
            clients = CanaryClients.settled(victim, exp.server.privacy, m, rng)
            return clients.run(exp.seed, inside, self.noise_scale), inside
        raise InputError(NO_CLAIM, "privacy", called(victim.mechanism))

    def _conclusions(self, outcome: Outcome, verdict: Verdict) -> list[str]:
        found, claim, noise = outcome.guessed, outcome.claim, outcome.noise
        right = ", ".join(f"{right} of {guesses}" for guesses, right in found.counts)
        how = (
            f"{right} guesses about {found.canaries} canaries were right: epsilon is at least "
            f"{verdict.bound:.3g} with {self.confidence:.0%} confidence if the mechanism is the "
            f"claimed one with other noise, at least {verdict.of_any_mechanism:.3g} whatever it "
            f"is, and the claim is {claim.epsilon:.3g} (delta {claim.delta:g})"
        )
        sentences = [
            f"ALARM: the claim is ruled out ({_p(verdict.p_value)}). {how}."
            if verdict.alarm
            else f"No contradiction; a low bound never proves DP. {how}.",
            *([f"{noise.sentence()} ({_p(noise.p_value)})."] if noise and noise.looks else []),
            f"The canaries: {outcome.run.canaries}.",
        ]
        if self.noise_scale != 1:
            sentences.append(
                f"Sabotaged on purpose: the noise was multiplied by {self.noise_scale:g}, and the "
                "claim is that of the full noise."
            )
        if not replace(found, counts=tuple((g, g) for g, _ in found.counts)).rules_out(
            claim.curve()
        ):
            sentences.append(
                "Guesses could not have raised the alarm, had all been right. Use more canaries."
            )
        return sentences


@final
@dataclass(frozen=True)
class Outcome:
    """A training with canaries, and what was guessed of it."""

    run: CanaryRun
    inside: np.ndarray  # [m] bool, which canaries were in
    scores: np.ndarray  # [m]
    guessed: Guessed
    noise: MeasuredNoise | None  # where it can be seen by itself
    claim: Claim

    @property
    def verdict(self) -> Verdict:
        """What all of it says of the claim."""
        return Verdict.of(self.guessed, self.noise, self.claim)


@final
@dataclass(frozen=True)
class Verdict:
    """What guesses, and the noise, say of a claim."""

    alarm: bool
    p_value: float
    bound: float  # of the claimed mechanism with other noise
    of_any_mechanism: float

    @classmethod
    def of(cls, found: Guessed, noise: MeasuredNoise | None, claim: Claim) -> Verdict:
        """The alarm by the whole curve; the bounds by curves of other noise, and by pairs alone."""
        curve = claim.curve()
        least, pair = (
            found.least_noise_ruled_out(claim.curve),
            found.least_noise_ruled_out(claim.pair),
        )
        bound = 0.0 if least is None else claim.epsilon_with(least)
        alarm, p_value = found.rules_out(curve), found.p_value(curve)
        if noise is not None:
            alarm, p_value = (
                alarm or noise.alarm,
                min(p_value / (1 - OF_NOISE), noise.p_value / OF_NOISE),
            )
            if noise.alarm:
                bound = max(bound, claim.epsilon_with(noise.at_most))
        return cls(
            alarm=alarm,
            p_value=min(1.0, p_value),
            bound=bound,
            of_any_mechanism=0.0 if pair is None else claim.epsilon / pair,
        )


def _p(value: float) -> str:
    return f"p {value:.1g}" if value >= 1e-16 else "p below 1e-16"


def _carried_out(
    run: CanaryRun, start: Tensor, progress: Progress
) -> tuple[np.ndarray, tuple[float, int], State]:
    """(scores `[m]`, what was seen of the noise, the ledger) of the training from `start` `[d]`."""
    exp = run.experiment
    before = state = initial_state(exp, start)
    total, squares, looks = np.zeros(1), 0.0, 0
    for state, record in run_rounds(exp, before):
        total = total + run.score(before, state, record).numpy()
        if run.looks is not None:
            more, looked = run.looks(record)
            squares, looks = squares + more, looks + looked
        before = state
        progress(state.round / exp.rounds)
    progress(1.0)  # also where max_epsilon ended the run
    return total, (squares, looks), state.ledger
