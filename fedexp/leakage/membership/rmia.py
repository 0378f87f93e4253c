"""RMIA, the robust attack: is the example likelier under the model than in the world at large?

    ratio(x) = p(x | model) / p(x)
    online:   p(x) = (mean p(x | models with x) + mean p(x | models without x)) / 2
    offline:  p(x) = ((1 + a) mean p(x | models without x) + 1 - a) / 2

p(x | model) is how sure the model is of the example's class (`Confidence`: in the paper no plain
softmax), and the models are reference federations (`fedexp.leakage.membership.shadows`), of which
one is enough: half of the pool is not in it, and about that half it can be asked. With two, each
example is in one of them.

The paper's score is the share of examples z of the population with ratio(x) / ratio(z) >= gamma.
For any population and any gamma it rises with ratio(x) and nothing else, so it ranks the examples
as ratio(x) does, but for ties where z are few. We rank by log ratio(x) itself: what z decides, the
threshold, a ROC goes through anyway.

Source: Zarifzadeh, Liu and Shokri, "Low-Cost High-Power Membership Inference Attacks", ICML 2024,
sections 2 and 3, appendix B.2 (the offline correction, where a is measured on the data: 0.3 on
CIFAR-10).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from fedexp.core.checks import InputError, at_least, in_range, one_of
from fedexp.core.examples import Dataset
from fedexp.core.findings import Figure, Findings
from fedexp.core.rng import generator
from fedexp.leakage import adversaries
from fedexp.leakage.membership.answers import accuracies, finite_logits, negative_loss, phi_of
from fedexp.leakage.membership.confidence import Confidence
from fedexp.leakage.membership.judged import class_figures
from fedexp.leakage.membership.pool import (
    OUTSIDER,
    Pool,
    caveats,
    of_other_classes,
    of_those_left_out,
)
from fedexp.leakage.membership.shadows import logits_of, of_idle_clients, shadows_of
from fedexp.leakage.study import Progress, refuse_several_labels
from fedexp.leakage.victim import Victim

REFERENCES = (1, 2, 4)
VARIANTS = ("online", "offline")
SOFTMAX = Confidence()


@final
@dataclass(frozen=True)
class RMIA:
    """The study: a few reference federations, and the ratio of every example.

    Args:
        references: federations to train: 1, 2 or 4. LiRA's first shadows are the same.
        variant: of the headline: "online", or "offline", which uses the references without the
            example only, and is all that one reference allows. The figures hold both.
        a: of the offline variant, from 0 to 1: how much surer models are for having seen the
            example, less being surer (1: not at all).
        permutations: shuffles behind the null interval, at least 40.
        confidence: p(x | model) of logits.
    """

    references: int
    variant: str
    a: float
    permutations: int
    confidence: Confidence = SOFTMAX  # as in runs of the time before there was such a key

    def __post_init__(self) -> None:
        if isinstance(self.references, bool) or self.references not in REFERENCES:
            allowed = ", ".join(map(str, REFERENCES))
            raise InputError(f"Allowed: {allowed}", "references", self.references)
        one_of(VARIANTS, variant=self.variant)
        if self.references == 1 and self.variant == "online":
            raise InputError(
                "needs models with the example and without it, and of one reference there is one "
                "kind only: variant=offline, or references=2",
                "variant",
                self.variant,
            )
        in_range(0, 1, a=self.a)
        at_least(40, permutations=self.permutations)
        if not callable(self.confidence):
            reason = "must be a part that takes logits and classes, such as Confidence"
            raise InputError(reason, "confidence", self.confidence)

    def __call__(self, victim: Victim, progress: Progress) -> Findings:
        """Train what is missing, score and judge; raises InputError where `Pool.of` does."""
        pool = Pool.of(victim)
        trained = 0

        def one_more() -> None:
            nonlocal trained
            trained += 1
            progress(0.95 * trained / self.references)

        shadows = shadows_of(victim, pool.examples, self.references, one_more)
        inside, y = np.stack([shadow.inside for shadow in shadows]), pool.examples.y
        log_p = np.stack(
            [self.confidence(logits_of(victim, shadow, pool.examples), y) for shadow in shadows]
        )
        round = victim.last_round
        params = victim.models[round].to(victim.device)
        logits = finite_logits(victim.model, params, victim.normalisation, pool.examples)
        asked = pool.clear & np.any(~inside, axis=0)  # of whom a reference was trained without
        target, those = self.confidence(logits, y)[asked], pool.only(asked)
        scores = {
            f"RMIA {variant}": self.scores(variant, target, log_p[:, asked], inside[:, asked])
            for variant in (VARIANTS if self.references > 1 else ("offline",))
        }
        scores["loss threshold"] = negative_loss(phi_of(logits, y))[asked]
        judged = {
            subject: those.judged(
                its, self.permutations, generator(victim.seed, "rmia_null", place)
            )
            for place, (subject, its) in enumerate(scores.items())
        }
        right = accuracies(victim, params)
        chosen = f"RMIA {self.variant}"
        by_class, of_classes = class_figures(
            chosen,
            round,
            scores[chosen],
            those.is_member,
            those.examples.y.numpy(),
            victim.pixels.class_names,
        )
        headline = judged[chosen].headline(right)
        progress(1.0)
        return Findings(
            figures=[
                *(row for subject in judged for row in judged[subject].rows(subject, round)),
                *by_class,
                *(Figure("model", round, 0, name, value) for name, value in right.items()),
            ],
            headline=headline,
            arrays=judged[chosen].arrays(),
            conclusions=[
                *(line for subject in judged for line in judged[subject].conclusions(subject)),
                *of_classes,
                f"Asked: the {int(asked.sum()):,} of {int(pool.clear.sum()):,} examples that a "
                f"reference was trained without.",
                *of_other_classes(those),
                *of_those_left_out(pool.clear[pool.is_member]),
                *of_idle_clients(pool, "the attack could be stronger"),
                *caveats(victim, headline),
            ],
            adversary=(
                f"{OUTSIDER} It knows the training algorithm with all its settings, not the seed, "
                f"and has data of the same kind, on halves of which it ran the whole training "
                f"{self.references} times."
            ),
            adversaries={"": adversaries.OUTSIDER},
        )

    def check_data(self, dataset: Dataset) -> None:
        """Raise InputError unless every example has one class."""
        refuse_several_labels(dataset)

    def scores(
        self, variant: str, target: np.ndarray, log_p: np.ndarray, inside: np.ndarray
    ) -> np.ndarray:
        """The log ratio `[n]` of every example, larger for "member".

        Args:
            variant: "online" or "offline".
            target: log p(x | model) `[n]` of the attacked model.
            log_p: the same `[k, n]` of the references.
            inside: `[k, n]` bool, which reference was trained on which example.
        """
        without = _log_mean(log_p, ~inside)
        if variant == "online":
            world = np.logaddexp(_log_mean(log_p, inside), without) - np.log(2)
        else:
            with np.errstate(divide="ignore"):  # a = 1: log 0
                world = np.logaddexp(np.log((1 + self.a) / 2) + without, np.log((1 - self.a) / 2))
        ratio: np.ndarray = target - world
        return ratio


def _log_mean(log_p: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Logarithm of the mean of p over the chosen of each example `[n]`."""
    masked = np.where(chosen, log_p, -np.inf)
    mean: np.ndarray = np.logaddexp.reduce(masked, axis=0) - np.log(chosen.sum(axis=0))
    return mean
