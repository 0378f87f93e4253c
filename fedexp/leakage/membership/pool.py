"""Membership inference: was this example among those that the run was trained on?

Whom the attacks of an outsider with the final model ask about. Members are the run's training
examples, as honest clients hold them that some round asked; non-members are its reserve or, without
one, its test part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
import torch

from fedexp.core.capabilities import does_nothing
from fedexp.core.checks import InputError
from fedexp.core.cohort import drawn
from fedexp.core.examples import Split
from fedexp.core.rng import generator
from fedexp.core.shards import all_rows, sizes_of
from fedexp.leakage.membership.judged import Judged, shuffled_within
from fedexp.leakage.study import refuse_several_labels
from fedexp.leakage.victim import Victim

OUTSIDER = (
    "An outsider who holds the final model and asks of single labelled examples whether they were "
    "trained on."
)
OTHERS_ARE_CHANCE = 1e-3  # how improbable other classes must be to be more than that


@final
@dataclass(frozen=True)
class Pool:
    """The examples in question, members first.

    Attributes:
        examples: pixels in [0, 1].
        is_member: `[n]` bool, the truth.
        clear: `[n]` bool; not those dealt to clients that never trained on them, or lied.
    """

    examples: Split
    is_member: np.ndarray
    clear: np.ndarray

    @classmethod
    def of(cls, victim: Victim) -> Pool:
        """All training examples, and as many of `victim.held_out`, or all where there are fewer.

        Raises:
            InputError: the run has no one model, or members differ from non-members by more than
                having been trained on; or there are none.
        """
        clear = members_of(victim)
        others = _drawn(victim.held_out, len(clear), victim.seed, "non_members")
        examples = victim.pixels.train.joined(others)
        is_member = np.arange(len(examples)) < len(clear)
        return cls(examples, is_member, np.append(clear, np.ones(len(others), dtype=bool)))

    @classmethod
    def drawn(cls, victim: Victim, most: int | None, clear: np.ndarray) -> Pool:
        """Of the training examples that are `clear` `[n]` bool and of the others, equally many.

        Args:
            victim: the run.
            most: of either side at most; None: as many as there are.
            clear: from `members_of`.
        """
        members = victim.pixels.train.rows(torch.from_numpy(clear))
        n = min(len(members), len(victim.held_out), len(members) if most is None else most)
        inside = _drawn(members, n, victim.seed, "members")
        examples = inside.joined(_drawn(victim.held_out, n, victim.seed, "non_members"))
        return cls(examples, np.arange(2 * n) < n, np.ones(2 * n, dtype=bool))

    def only(self, chosen: np.ndarray) -> Pool:
        """The examples `[n]` bool alone."""
        examples = self.examples.rows(torch.from_numpy(chosen))
        return Pool(examples, self.is_member[chosen], self.clear[chosen])

    def judged(self, scores: np.ndarray, permutations: int, rng: np.random.Generator) -> Judged:
        """What scores `[n]` of its examples are worth, within classes where the sides' differ."""
        chance = None
        if not self.classes_alike:
            chance = shuffled_within(self.examples.y.numpy(), scores, self.is_member)
        return Judged.of(scores, self.is_member, permutations, rng, chance)

    @cached_property
    def classes_alike(self) -> bool:
        """Whether both sides may be drawn from one mix of classes: chi-squared, at one in 1,000."""
        from scipy.stats import chi2_contingency

        labels = self.examples.y.numpy()
        classes = np.unique(labels)
        sides = (labels[self.is_member], labels[~self.is_member])
        counts = np.array([[np.sum(side == c) for c in classes] for side in sides])
        return len(classes) < 2 or bool(chi2_contingency(counts).pvalue > OTHERS_ARE_CHANCE)


def of_other_classes(pool: Pool) -> list[str]:
    """What a reader has to know where the classes tell the two sides apart."""
    if pool.classes_alike:
        return []
    return [
        "Members and non-members have other classes than each other, which alone tells some of "
        "them apart: the null interval is of labels shuffled within the classes."
    ]


def members_of(victim: Victim, rounds: int | None = None) -> np.ndarray:
    """Which training examples `[n]` bool an honest client holds that was asked to train.

    Nobody trained on the others, and a malicious client sends what it likes.

    Args:
        victim: the run.
        rounds: so many, from the first; None: all that it had.

    Raises:
        InputError: as `refuse_no_clean_answer`, or there are none.
    """
    refuse_no_clean_answer(victim)
    exp = victim.experiment
    asked = np.zeros(exp.n_clients, dtype=bool)
    for round in range(rounds or victim.last_round):
        asked[drawn(exp.sampler, exp.n_clients, generator(exp.seed, "cohort", round))] = True
    if not does_nothing(exp.attack):
        asked &= ~exp.malicious
    shards = exp.setting.shards(victim.partition)
    members = np.zeros(len(victim.pixels.train), dtype=bool)
    members[all_rows(shards)[np.repeat(asked[: len(shards)], sizes_of(shards))]] = True
    if not members.any():
        raise InputError(
            "no round asked an honest client that holds examples: there are no members",
            "cohort_size",
            victim.config["cohort_size"],
        )
    return members


def of_those_left_out(members: np.ndarray) -> list[str]:
    """How many training examples `[n]` bool nobody is asked about."""
    if members.all():
        return []
    return [
        f"Left out: {int((~members).sum()):,} of the {len(members):,} training examples, which no "
        "honest client holds that a round asked."
    ]


def refuse_no_clean_answer(victim: Victim) -> None:
    """Raise InputError where the question has no clean answer."""
    refuse_several_labels(victim.pixels)
    if victim.models[victim.last_round].ndim != 1:
        raise InputError(
            "every client has a model of its own; membership in a final model needs one that all "
            "share: setting=federated or centralised",
            "setting",
            "local_only",
        )
    attack, train = victim.experiment.attack, victim.pixels.train
    poisoned = attack.poison(train, generator(victim.seed, "membership")) is not train
    if victim.config["attack"]["n_malicious"] and poisoned:
        raise InputError(
            "its clients trained on changed examples, which anybody tells from unchanged ones; "
            "study a run without it, or with an attack on updates",
            "attack",
            victim.config["attack"]["_target_"],
        )
    if victim.partition.changed:
        raise InputError(
            "members went through their client's scanner and non-members did not; study a run "
            "with partition=iid or another that leaves the images alone",
            "partition",
            victim.config["partition"]["_target_"],
        )


def caveats(victim: Victim, headline: Mapping[str, float]) -> list[str]:
    """What a reader has to know of the run beside the attack's figures."""
    remarks = [
        f"The model is right on {100 * headline['train_accuracy']:.1f} % of the training part and "
        f"{100 * headline['test_accuracy']:.1f} % of the test part."
    ]
    if not len(victim.reserve):
        remarks.append(
            "Non-members are the test part, which may differ from the training part by more than "
            "not having been trained on; train_examples leaves a reserve of the same kind."
        )
    return remarks


def rounds_of(victim: Victim, rounds: Sequence[int | str]) -> list[int]:
    """The rounds meant by "initial", "last" and numbers, sorted, without repeats.

    Raises:
        InputError: the run keeps no model of a round.
    """
    words = {"initial": 0, "last": victim.last_round}
    found: set[int] = set()
    for asked in rounds:
        round = words.get(asked) if isinstance(asked, str) else asked
        if round is None or isinstance(round, bool) or round not in victim.models:
            kept = ", ".join(map(str, sorted(victim.models)))
            raise InputError(f"the run kept the models of rounds {kept}", "rounds", asked)
        found.add(round)
    return sorted(found)


def _drawn(part: Split, most: int | None, seed: int, purpose: str) -> Split:
    """At most so many rows, in their order."""
    if most is None or most >= len(part):
        return part
    order = generator(seed, f"membership_{purpose}").permutation(len(part))
    return part.rows(torch.from_numpy(np.sort(order[:most])))
