"""The loss threshold: an example that the model finds easy was probably trained on.

    score(x, y) = -loss = log p_y

It knows nothing of how hard an example is by nature, so on average it looks harmless; LiRA
(`fedexp.leakage.membership.lira`) does.

Source: Yeom, Giacomelli, Fredrikson and Jha, "Privacy Risk in Machine Learning: Analyzing the
Connection to Overfitting", IEEE CSF 2018, section 3.3 (adversary 2). There the threshold is the
mean training loss and one accuracy is reported; here every threshold is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from fedexp.core.checks import InputError, at_least
from fedexp.core.examples import Dataset
from fedexp.core.findings import Figure, Findings
from fedexp.core.rng import generator
from fedexp.leakage import adversaries
from fedexp.leakage.membership.answers import accuracies, negative_loss, true_class_logits
from fedexp.leakage.membership.judged import class_figures
from fedexp.leakage.membership.pool import (
    OUTSIDER,
    Pool,
    caveats,
    members_of,
    of_other_classes,
    of_those_left_out,
    rounds_of,
)
from fedexp.leakage.study import Progress, refuse_several_labels
from fedexp.leakage.victim import Victim


@final
@dataclass(frozen=True)
class LossThreshold:
    """The study: members and non-members, equally many, ranked by the model's loss.

    Args:
        rounds: whose models are attacked: "initial", "last" or numbers; the headline is the latest.
        most_examples: members at most, and as many non-members; None: as many as there are.
        permutations: shuffles behind the null interval, at least 40.
    """

    of_a_model_alone: ClassVar[bool] = True
    asks_for_members: ClassVar[bool] = True

    rounds: Sequence[int | str]
    most_examples: int | None
    permutations: int

    def __post_init__(self) -> None:
        if not self.rounds:
            raise InputError("names no round", "rounds", list(self.rounds))
        if self.most_examples is not None:
            at_least(1, most_examples=self.most_examples)
        at_least(40, permutations=self.permutations)

    def __call__(self, victim: Victim, progress: Progress) -> Findings:
        """Rank and judge; raises InputError where `members_of` or `rounds_of` does."""
        rounds = rounds_of(victim, self.rounds)
        members = members_of(victim, rounds[-1])
        pool = Pool.drawn(victim, self.most_examples, members)
        rows: list[Figure] = []
        for place, round in enumerate(rounds):
            params = victim.models[round].to(victim.device)
            phi = true_class_logits(victim.model, params, victim.normalisation, pool.examples)
            rng = generator(victim.seed, "loss_threshold_null", round)
            judged = pool.judged(negative_loss(phi), self.permutations, rng)
            right = accuracies(victim, params)
            rows += judged.rows("loss threshold", round)
            rows += [Figure("model", round, 0, name, value) for name, value in right.items()]
            progress((place + 1) / len(rounds))
        by_class, of_classes = class_figures(
            "loss threshold",
            round,
            negative_loss(phi),
            pool.is_member,
            pool.examples.y.numpy(),
            victim.pixels.class_names,
        )
        headline = judged.headline(right)
        return Findings(
            figures=[*rows, *by_class],
            headline=headline,
            arrays=judged.arrays(),
            conclusions=[
                *judged.conclusions("loss threshold"),
                *of_classes,
                *of_other_classes(pool),
                *of_those_left_out(members),
                *caveats(victim, headline),
            ],
            adversaries={"": adversaries.OUTSIDER},
            adversary=f"{OUTSIDER} It knows nothing else: no data, no training algorithm.",
        )

    def check_data(self, dataset: Dataset) -> None:
        """Raise InputError unless every example has one class."""
        refuse_several_labels(dataset)
