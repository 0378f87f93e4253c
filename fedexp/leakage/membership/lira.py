"""LiRA, the likelihood-ratio attack: is the model as sure of the example as models that saw it?

    online:  score = log N(phi; mu_in, s_in^2) - log N(phi; mu_out, s_out^2)
    offline: score = (phi - mu_out) / s_out

phi is how sure the attacked model is of the example (`fedexp.leakage.membership.answers`); mu and s
are mean and deviation of the same over shadow models (`fedexp.leakage.membership.shadows`) that
were trained with the example (in) and without it (out), so hard examples are compared with
themselves. `per_example`
takes every example's own deviations, `global` one s_in and one s_out for all, which is better with
few shadows.

Source: Carlini, Chien, Nasr, Song, Terzis and Tramèr, "Membership Inference Attacks From First
Principles", IEEE S&P 2022, sections 4 and 5 (algorithm 1). Ours differs in three ways: a global
deviation is the root of the mean of the examples' own variances, where the authors' code takes the
deviation of all phi together, differences between examples included; the offline score is the
number of deviations itself, whose ranks are those of the paper's probability but which does not
round to 1; and every model is asked about the example itself only, not about mirrored copies.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import final

import numpy as np

from fedexp.core.checks import InputError, at_least, one_of
from fedexp.core.examples import Dataset
from fedexp.core.findings import Figure, Findings
from fedexp.core.rng import generator
from fedexp.leakage import adversaries
from fedexp.leakage.membership.answers import accuracies, negative_loss, true_class_logits
from fedexp.leakage.membership.judged import Judged, class_figures
from fedexp.leakage.membership.pool import (
    OUTSIDER,
    Pool,
    caveats,
    of_other_classes,
    of_those_left_out,
)
from fedexp.leakage.membership.roc import Roc
from fedexp.leakage.membership.shadows import (
    confidence_of,
    halves,
    of_idle_clients,
    refuse_number,
    shadows_of,
)
from fedexp.leakage.study import Progress, refuse_several_labels
from fedexp.leakage.victim import Victim

VARIANTS = ("online", "offline")
VARIANCES = ("per_example", "global", "auto")
TARGETS = ("run", "shadows")
MANY = 64  # shadows from which on an example's own deviations are known well enough
LEAST_VARIANCE = 1e-12  # models that agree to the last bit are no reason to divide by 0


@final
@dataclass(frozen=True)
class LiRA:
    """The study: shadows of the run, and the likelihood ratio of every example.

    Args:
        shadows: models to train, even, 4 or above; every example is in half of them.
        variant: of the headline: "online", or "offline", which uses the models without the example
            only. The figures hold both, and the loss threshold on the same examples.
        variance: "per_example", "global", or "auto": global below 64 shadows.
        targets: "run" attacks the run; "shadows" attacks each shadow in turn with the help of the
            others, its pair left out, and pools the scores: what training like this leaks, with
            many more non-members than one run has. As a shadow helps to score those that help to
            score it, the null interval is of halves drawn anew, with all scores computed again;
            the interval of an AUC counts examples, and not what all shadows say of them.
        permutations: shuffles behind the null interval, at least 40.
    """

    shadows: int
    variant: str
    variance: str
    targets: str
    permutations: int

    def __post_init__(self) -> None:
        refuse_number(self.shadows)
        one_of(VARIANTS, variant=self.variant)
        one_of(VARIANCES, variance=self.variance)
        one_of(TARGETS, targets=self.targets)
        at_least(40, permutations=self.permutations)
        if self.targets == "shadows" and self.shadows < 6:
            reason = "targets=shadows leaves a pair out and needs 4 others: 6 or above"
            raise InputError(reason, "shadows", self.shadows)

    def __call__(self, victim: Victim, progress: Progress) -> Findings:
        """Train what is missing, score and judge; raises InputError where `Pool.of` does."""
        pool = Pool.of(victim)
        trained = 0

        def one_more() -> None:
            nonlocal trained
            trained += 1
            progress(0.95 * trained / self.shadows)

        shadows = shadows_of(victim, pool.examples, self.shadows, one_more)
        inside = np.stack([shadow.inside for shadow in shadows])
        phi = np.stack([confidence_of(victim, shadow, pool.examples) for shadow in shadows])
        round = victim.last_round
        params = victim.models[round].to(victim.device)
        remarks = [self._sizes(victim, inside)]
        if self.targets == "run":
            remarks += of_those_left_out(pool.clear[pool.is_member])
            remarks += of_idle_clients(pool, "the attack could be stronger")
            phi, inside, pool = phi[:, pool.clear], inside[:, pool.clear], pool.only(pool.clear)
            remarks += of_other_classes(pool)
            own = true_class_logits(victim.model, params, victim.normalisation, pool.examples)
            attacked = [(own, pool.is_member, np.ones(len(phi), dtype=bool))]
        else:
            remarks += of_idle_clients(pool, "shadows leak more than the figures say")
            attacked = [(phi[t], inside[t], all_but_pair(t, len(phi))) for t in range(len(phi))]
        asked = np.concatenate([target for target, _, _ in attacked])
        truth = np.concatenate([is_member for _, is_member, _ in attacked])
        examples = np.tile(np.arange(len(pool.examples)), len(attacked))

        def judge(scores: np.ndarray, study: LiRA | None = None) -> Judged:
            rng = generator(victim.seed, "lira_null")
            if self.targets == "run":
                return pool.judged(scores, self.permutations, rng)
            chance = partial(_by_halves_drawn_anew, study=study, phi=phi)
            return Judged.of(scores, truth, self.permutations, rng, chance, examples)

        # The other variant costs nothing more, and where models are noisy it is the stronger one.
        judged: dict[str, Judged] = {}
        of_subject: dict[str, np.ndarray] = {}
        for variant in (self.variant, *(name for name in VARIANTS if name != self.variant)):
            study = replace(self, variant=variant)
            scores = [
                study.scores(target, phi[helpers], inside[helpers])
                for target, _, helpers in attacked
            ]
            of_subject[f"LiRA {variant}"] = np.concatenate(scores)
            judged[f"LiRA {variant}"] = judge(of_subject[f"LiRA {variant}"], study)
        judged["loss threshold"] = judge(negative_loss(asked))

        right = accuracies(victim, params)
        chosen = judged[f"LiRA {self.variant}"]
        by_class, of_classes = class_figures(
            f"LiRA {self.variant}",
            round,
            of_subject[f"LiRA {self.variant}"],
            truth,
            pool.examples.y.numpy()[examples],
            victim.pixels.class_names,
            examples,
        )
        headline = chosen.headline(right)
        progress(1.0)
        return Findings(
            figures=[
                *(row for subject in judged for row in judged[subject].rows(subject, round)),
                *by_class,
                *(Figure("model", round, 0, name, value) for name, value in right.items()),
            ],
            headline=headline,
            arrays=chosen.arrays(),
            conclusions=[
                *(line for subject in judged for line in judged[subject].conclusions(subject)),
                *of_classes,
                *remarks,
                *caveats(victim, headline),
            ],
            adversary=(
                f"{OUTSIDER} It knows the training algorithm with all its settings, not the seed, "
                f"and has data of the same kind, on halves of which it ran the whole training "
                f"{self.shadows} times."
            ),
            adversaries={"": adversaries.OUTSIDER},
        )

    def check_data(self, dataset: Dataset) -> None:
        """Raise InputError unless every example has one class."""
        refuse_several_labels(dataset)

    def scores(self, target: np.ndarray, phi: np.ndarray, inside: np.ndarray) -> np.ndarray:
        """The score `[n]` of every example, larger for "member".

        Args:
            target: phi `[n]` of the attacked model.
            phi: `[N, n]` of the shadows.
            inside: `[N, n]` bool, which shadow was trained on which example.
        """
        pooled = self.variance == "global" or (self.variance == "auto" and len(phi) < MANY)
        mean_out, variance_out = _moments(phi, ~inside, pooled)
        if self.variant == "offline":
            deviations: np.ndarray = (target - mean_out) / np.sqrt(variance_out)
            return deviations
        mean_in, variance_in = _moments(phi, inside, pooled)
        ratio: np.ndarray = _log_normal(target, mean_in, variance_in) - _log_normal(
            target, mean_out, variance_out
        )
        return ratio

    def _sizes(self, victim: Victim, inside: np.ndarray) -> str:
        own, shadow = len(victim.pixels.train), int(inside[0].sum())
        attacked = "run" if self.targets == "run" else f"{self.shadows} shadows, each by the others"
        return (
            f"Attacked: the {attacked}. The run's clients hold {own:,} examples, a shadow's "
            f"{shadow:,}" + ("." if own == shadow else ": shadows know a little less than it.")
        )


def _by_halves_drawn_anew(rng: np.random.Generator, study: LiRA | None, phi: np.ndarray) -> Roc:
    """The curve of shadows attacked by each other, had they nothing to do with their halves.

    Args:
        rng: draws the halves.
        study: whose scores; None: how sure the shadows are.
        phi: `[N, n]` of the shadows.
    """
    number, n = phi.shape
    inside = halves(int(rng.integers(2**63)), number, n)
    scores = phi
    if study is not None:
        helpers = [all_but_pair(target, number) for target in range(number)]
        each = zip(phi, helpers, strict=True)
        scores = np.stack([study.scores(own, phi[by], inside[by]) for own, by in each])
    return Roc.of(scores[inside], scores[~inside])


def all_but_pair(target: int, number: int) -> np.ndarray:
    """Which shadows help to attack shadow `target`: `[number]` bool, not itself nor its pair.

    With the other of its pair, an example would be in more of them if it is not in the target.

    >>> all_but_pair(2, 6).tolist()
    [True, True, False, False, True, True]
    """
    helpers: np.ndarray = np.arange(number) // 2 != target // 2
    return helpers


def _moments(phi: np.ndarray, chosen: np.ndarray, pooled: bool) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance `[n]` over the chosen models of each example."""
    count = chosen.sum(axis=0)
    mean = np.where(chosen, phi, 0.0).sum(axis=0) / count
    variance = np.where(chosen, (phi - mean) ** 2, 0.0).sum(axis=0) / (count - 1)
    if pooled:
        variance = np.full_like(variance, variance.mean())
    return mean, np.maximum(variance, LEAST_VARIANCE)


def _log_normal(x: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Log density of a normal, without the constant that cancels in a ratio."""
    density: np.ndarray = -0.5 * ((x - mean) ** 2 / variance + np.log(variance))
    return density
