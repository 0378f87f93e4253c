"""The worst of several attacks, and of their strengths: searched every round, by what it does.

    delta_k(a, t) = m + t (a_k - m)      a_k: what member a would send as client k,  m: honest mean
    (a*, t*)      = argmax harm(rows with those),          harm: of the model after the round

harm: first whether the model goes the other way, <step, m> < 0, and then its loss on the validation
part. Both behind the server as it is applied (`fedexp.federation.trial`): validation of updates,
mixing, rule, algorithm and server optimiser, and the detector if the adversary is to know it. By
the loss alone the search would be greedy: it would take what hurts most now and is repaired in the
next round before a small step back in every round, from which there is no recovery.

Every member is tried as it is (t = 1). Two of them get what is left of the probes, in turns: the
one that does most, and of the others the one whose step goes furthest against m. t doubles as long
as that helps, then goes by smaller and smaller factors both ways. So a defence has one number in
the place of a table, with the same budget for every rule: `probes` a round, each of which is a
round of the server and an evaluation on the validation part.

Knows: the honest updates of the round, the server, and examples like those that are tested on. A
trial after which the model gives no finite answer is never chosen: who wants a model to be wrong
does not end its training.

Sources: the worst case over attacks as the measure of a rule is byzfl's (Allouah et al., "Fixing by
Mixing", AISTATS 2023); strengths searched against the rule: Shejwalkar and Houmansadr,
"Manipulating the Byzantine", NDSS 2021. By the model's answers rather than by distances, and over
several attacks: ours. It looks one round ahead (what else was tried:
docs/decisions/033-worst-of.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, final

import numpy as np
from torch import Tensor

from fedexp.attacks.base import with_malicious_rows
from fedexp.attacks.honest import known_rows
from fedexp.core.capabilities import rewritten_by
from fedexp.core.checks import InputError, at_least
from fedexp.core.examples import Split
from fedexp.core.protocols import Attack
from fedexp.core.types import Rule, State, Updates


@final
@dataclass(frozen=True)
class WorstOf:
    """Try every member, the most harmful ones at several strengths, and send what does most harm.

    Args:
        members: attacks on updates, by name.
        probes: trials a round, at least one a member.
        knows_validation: whether it foresees which of its rows are not taken.
        knows_detector: whether it foresees the detector's verdict.
    """

    targets_by_example: ClassVar[bool] = True

    members: Mapping[str, Attack]
    probes: int
    knows_validation: bool
    knows_detector: bool

    def __post_init__(self) -> None:
        if not isinstance(self.members, Mapping) or not self.members:
            raise InputError("must be attacks by name, at least one", "members", self.members)
        for name, member in self.members.items():
            if not callable(getattr(member, "rewrite", None)):
                reason = "is no attack: it needs a _target_ that is one"
                raise InputError(reason, f"members.{name}", type(member).__name__)
        at_least(len(self.members), probes=self.probes)

    def poison(self, data: Split, rng: np.random.Generator) -> Split:
        """The data unchanged.

        Raises:
            InputError: a member would change them, and only rows can be tried before they are sent.
        """
        for name, member in self.members.items():
            if member.poison(data, rng) is not data:
                reason = "changes what clients train on; only attacks on updates can be tried out"
                raise InputError(reason, f"members.{name}", type(member).__name__)
        return data

    def targeted_examples(self, data: Split) -> Split:
        """Empty: it wants no answer in particular."""
        return data.between(0, 0)

    def rewrite(
        self, updates: Updates, malicious: Tensor, rule: Rule, rng: np.random.Generator
    ) -> Updates:
        """New updates with the malicious rows of the most harmful trial."""
        return self.rewrite_remembering(updates, malicious, rule, rng, {})[0]

    def rewrite_remembering(
        self,
        updates: Updates,
        malicious: Tensor,
        rule: Rule,
        rng: np.random.Generator,
        memory: State,
    ) -> tuple[Updates, State]:
        """The same, with what members remember: each learns from every round, sent or not."""
        if not malicious.any():
            return updates, memory
        mean = known_rows(updates, malicious).mean(dim=0)
        searches, kept = [], {}
        tried = updates.matrix.clone()  # one for all trials: only the malicious rows change
        for name, member in self.members.items():
            prefix = f"{name}."  # of what is its own
            own = {k.removeprefix(prefix): t for k, t in memory.items() if k.startswith(prefix)}
            made, after = rewritten_by(member, updates, malicious, rule, rng, own)
            sent = _along(mean, made.matrix[malicious])
            searches.append(Search(_harm(rule, tried, malicious, mean, sent), sent))
            kept.update({prefix + k: t for k, t in after.items()})
        worst = max(searches, key=lambda search: search.most)
        against = max(searches, key=lambda search: (search is not worst, search.most.against))
        for turn in range(self.probes - len(searches)):
            (worst, against)[turn % 2].probe()
        worst = max(worst, against, key=lambda search: search.most)
        return with_malicious_rows(updates, malicious, worst.rows(worst.strength)), kept


FIRST = 2.0  # factor on a strength


class Harm(NamedTuple):
    """What a trial does; the larger one, in this order, is the worse one."""

    back: bool  # whether the model goes the other way
    loss: float  # of the model then; -inf where that is not finite
    against: float  # how far it goes against the honest mean, -<step, m>


@dataclass
class Search:
    """For the strength of one member, from 1: doubled while it helps, then smaller steps both ways.

    Args:
        harm: of a strength.
        rows: what malicious clients send at a strength, `[m, D]`.

    >>> search = Search(lambda t: Harm(False, -abs(t - 6), 0.0), lambda t: None)
    >>> for _ in range(12):
    ...     search.probe()
    >>> 5.5 < search.strength < 6.5
    True
    """

    harm: Callable[[float], Harm]
    rows: Callable[[float], Tensor]
    strength: float = 1.0
    factor: float = FIRST
    most: Harm = field(init=False)

    def __post_init__(self) -> None:
        self.most = self.harm(self.strength)

    def probe(self) -> None:
        """One more trial; the strength stays where it does no more harm."""
        trial = self.strength * self.factor
        if (harm := self.harm(trial)) > self.most:
            self.strength, self.most = trial, harm
        else:
            self.factor = _next(self.factor)


def _next(factor: float) -> float:
    """After one that did not help: 2, 2^(1/2), 2^(-1/2), 2^(1/4), 2^(-1/4), ...

    Upwards first: what a rule lets through does the more harm the stronger it is.
    """
    return 1 / factor if 1 < factor < FIRST else math.sqrt(max(factor, 1 / factor))


def _along(mean: Tensor, own: Tensor) -> Callable[[float], Tensor]:
    """By strength: from the honest mean `[D]` through the rows `[m, D]` that a member sends.

    At 1 they are the member's own, to the bit.
    """
    return lambda strength: own if strength == 1 else mean + strength * (own - mean)


def _harm(
    rule: Rule, tried: Tensor, malicious: Tensor, mean: Tensor, rows: Callable[[float], Tensor]
) -> Callable[[float], Harm]:
    """By strength; the trial's rows are put into `tried` `[n, D]`."""

    def harm(strength: float) -> Harm:
        tried[malicious] = rows(strength).to(tried)
        outcome = rule.outcome(tried)
        if not math.isfinite(outcome.loss):
            return Harm(False, -math.inf, -math.inf)
        against = -float(outcome.step.double() @ mean[: len(outcome.step)].double())
        return Harm(against > 0, outcome.loss, against)

    return harm
