"""Membership inference: was this example among those that the run was trained on?

What the attacks have in common: the examples in question, how sure a model is of each, and findings
made of scores. How sure a model is of example (x, y) is the logit of its probability,

    phi = log p_y - log(1 - p_y) = z_y - log sum over k != y of exp(z_k),    loss = log(1 + e^-phi)

z being the model's logits, taken to float64 and never turned into a probability, which would round
to 1 for every example that a model has learned by heart.

The adversary is an outsider with the final model. Members are the run's training examples, as
honest clients hold them that some round asked; non-members are its reserve or, without one, its
test part.

Source of phi: Carlini, Chien, Nasr, Song, Terzis and Tramèr, "Membership Inference Attacks From
First Principles", IEEE S&P 2022, section 4.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
import torch
from torch import Tensor, nn

from fedexp.core.capabilities import does_nothing
from fedexp.core.checks import InputError
from fedexp.core.cohort import drawn
from fedexp.core.examples import Split
from fedexp.core.findings import Figure
from fedexp.core.flat import FlatModel
from fedexp.core.normalise import Normalisation
from fedexp.core.rng import generator
from fedexp.core.shards import all_rows, sizes_of
from fedexp.core.workload import evaluation_batch
from fedexp.leakage.membership.roc import RATES, Roc, auc_interval, middle_of, null_intervals
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


def true_class_logits(
    model: nn.Module, params: Tensor, normalisation: Normalisation, examples: Split
) -> np.ndarray:
    """The phi `[n]` float64 of each example under the model `params` `[d]`.

    Raises:
        InputError: the model's answers are not finite.
    """
    return phi_of(finite_logits(model, params, normalisation, examples), examples.y)


def finite_logits(
    model: nn.Module, params: Tensor, normalisation: Normalisation, examples: Split
) -> Tensor:
    """The z `[n, classes]` float64 of the model `params` `[d]`.

    Raises:
        InputError: the model's answers are not finite.
    """
    logits = _logits(model, params, normalisation, examples).double()
    if not bool(logits.isfinite().all()):
        raise InputError("the model diverged: its logits are not finite")
    return logits


def phi_of(logits: Tensor, y: Tensor) -> np.ndarray:
    """The phi `[n]` of logits `[n, classes]` float64 and classes `[n]`."""
    truth = torch.nn.functional.one_hot(y, logits.shape[1]).bool()
    others = logits.masked_fill(truth, -torch.inf).logsumexp(dim=1)
    phi: np.ndarray = (logits[truth] - others).numpy()
    return phi


def negative_loss(phi: np.ndarray) -> np.ndarray:
    """Minus the cross-entropy `[n]`, from `true_class_logits`.

    >>> negative_loss(np.array([0.0])).round(4).tolist()  # p = 1/2
    [-0.6931]
    """
    loss: np.ndarray = np.logaddexp(0.0, -phi)
    return -loss


def accuracies(victim: Victim, params: Tensor) -> dict[str, float]:
    """How often the model `params` `[d]` is right on the training part and on the test part."""
    parts = {"train_accuracy": victim.pixels.train, "test_accuracy": victim.pixels.test}
    answers = {
        name: victim.task.predict(
            _logits(victim.model, params.to(victim.device), victim.normalisation, part)
        )
        for name, part in parts.items()
    }
    return {name: float((answers[name] == parts[name].y).double().mean()) for name in parts}


@final
@dataclass(frozen=True)
class Judged:
    """What scores are worth.

    Attributes:
        figures: metric -> value, the null interval as `<metric>_null_low` and `_null_high`; of the
            AUC and the rates at low FPR also their own, as `<metric>_low` and `_high`.
        roc: all rates.
        members: scores `[m]`.
        non_members: scores `[n]`.
    """

    figures: Mapping[str, float]
    roc: Roc
    members: np.ndarray
    non_members: np.ndarray

    @classmethod
    def of(
        cls,
        scores: np.ndarray,
        is_member: np.ndarray,
        permutations: int,
        rng: np.random.Generator,
        chance: Callable[[np.random.Generator], Roc] | None = None,
        examples: np.ndarray | None = None,
    ) -> Judged:
        """Of scores `[n]`, larger for "member", against the truth `[n]` bool.

        Args:
            scores: `[n]`.
            is_member: `[n]` bool.
            permutations: draws behind the null interval.
            rng: draws them.
            chance: draws what comes out where there is nothing to be told; None: labels shuffled.
            examples: `[n]` which example each score is of; None: each of its own.
        """
        members, non_members = scores[is_member], scores[~is_member]
        roc = Roc.of(members, non_members)
        figures = dict(roc.figures())
        if chance is None:
            nulls = null_intervals(members, non_members, permutations, rng)
        else:
            nulls = middle_of([chance(rng).figures() for _ in range(permutations)])
        for metric, (low, high) in nulls.items():
            figures |= {f"{metric}_null_low": low, f"{metric}_null_high": high}
        for metric, rate in RATES.items():
            interval = roc.tpr_interval(rate)
            figures |= {f"{metric}_low": interval.low, f"{metric}_high": interval.high}
        low, high = auc_interval(members, non_members, _members_first(examples, is_member))
        figures |= {"auc_low": low, "auc_high": high}
        return cls(figures, roc, members, non_members)

    def rows(self, subject: str, round: int) -> list[Figure]:
        """The figures as a study's rows."""
        return [Figure(subject, round, 0, metric, value) for metric, value in self.figures.items()]

    def headline(self, accuracies: Mapping[str, float]) -> dict[str, float]:
        """The figures, the accuracies and the sizes."""
        sizes = {"n_members": len(self.members), "n_non_members": len(self.non_members)}
        return {**self.figures, **accuracies, **sizes}

    def arrays(self) -> dict[str, np.ndarray]:
        """What a ROC and a histogram of the scores are drawn from."""
        return {
            "fpr": self.roc.fpr,
            "tpr": self.roc.tpr,
            "scores_members": self.members,
            "scores_non_members": self.non_members,
        }

    def conclusions(self, subject: str) -> list[str]:
        """A sentence a metric, from the figures."""
        known = self.figures
        auc, low, high = known["auc"], known["auc_null_low"], known["auc_null_high"]
        interval = f"the null interval {low:.3f} to {high:.3f}"
        if auc > high:
            verdict = f"above {interval}"
        elif auc < low:
            verdict = f"below {interval}: the two sides differ in something else than membership"
        else:
            verdict = f"inside {interval}: not told from guessing"
        own = f" [{known['auc_low']:.3f}, {known['auc_high']:.3f}]"
        sentences = [f"AUC {auc:.3f}{own}, {verdict}", *map(self._at_low_fpr, RATES)]
        return [f"{subject[0].upper()}{subject[1:]}: {sentence}." for sentence in sentences]

    def _at_low_fpr(self, metric: str) -> str:
        rate, value = RATES[metric], self.figures[metric]
        name, n = f"TPR at {100 * rate:g} % FPR", len(self.non_members)
        if math.isnan(value):
            return f"{name} is not measurable: it takes {1 / rate:,.0f} non-members, not {n:,}"
        high = self.figures[f"{metric}_null_high"]
        low, up = (self.figures[f"{metric}{end}"] for end in ("_low", "_high"))
        verdict = "above" if value > high else "inside"
        return (
            f"{name} {100 * value:.2f} % [{100 * low:.2f}, {100 * up:.2f}], "
            f"{value / rate:.1f} times chance, {verdict} the null interval, which ends at "
            f"{100 * high:.2f} %; false alarms behind it: at most "
            f"{math.floor(rate * n + 1e-9)} of {n:,}"
        )


def _members_first(values: np.ndarray | None, is_member: np.ndarray) -> np.ndarray | None:
    return None if values is None else np.concatenate([values[is_member], values[~is_member]])


LEAST_OF_CLASS = 5  # members, and non-members: fewer say nothing of a class
BY_CLASS = ", by class"
"""Stands behind the subject of figures whose targets are classes."""


def class_figures(
    subject: str,
    round: int,
    scores: np.ndarray,
    is_member: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    examples: np.ndarray | None = None,
) -> tuple[list[Figure], list[str]]:
    """The figures of every class that has a few of both kinds, against its own kind; a sentence.

    Their mean is the class-balanced figure: a class counts as much as another, however rare it is.

    Args:
        subject: whose scores.
        round: of the model.
        scores: `[n]`, larger for "member".
        is_member: `[n]` bool.
        labels: `[n]` classes.
        names: of the classes.
        examples: `[n]` which example each score is of; None: each of its own.
    """
    rows, aucs = [], {}
    examples = np.arange(len(scores)) if examples is None else examples
    for c in np.unique(labels).tolist():
        sides = is_member & (labels == c), ~is_member & (labels == c)
        if min(len(np.unique(examples[side])) for side in sides) < LEAST_OF_CLASS:
            continue
        inside, outside = (scores[side] for side in sides)
        roc = Roc.of(inside, outside)
        aucs[names[c]] = roc.auc
        low, high = auc_interval(inside, outside, np.concatenate([examples[s] for s in sides]))
        values = {"auc": roc.auc, "auc_low": low, "auc_high": high}
        values |= {metric: roc.tpr_at(rate) for metric, rate in RATES.items()}
        rows += [Figure(subject + BY_CLASS, round, c, name, v) for name, v in values.items()]
    if len(aucs) < 2:
        return rows, []
    there = len(np.unique(labels))
    which = "" if len(aucs) == there else f"{len(aucs)} of {there} "
    some = f" with {LEAST_OF_CLASS} of either side or more" if which else ""
    least, most = min(aucs, key=aucs.__getitem__), max(aucs, key=aucs.__getitem__)
    return rows, [
        f"{subject[0].upper()}{subject[1:]}: the mean AUC over the {which}classes{some} is "
        f"{np.mean(list(aucs.values())):.3f}, from {aucs[least]:.3f} ({least}) to "
        f"{aucs[most]:.3f} ({most})."
    ]


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


def shuffled_within(
    classes: np.ndarray, scores: np.ndarray, is_member: np.ndarray
) -> Callable[[np.random.Generator], Roc]:
    """Draws the curve of labels shuffled among examples of one class, of whom as many stay members.

    Where the two sides have other classes than each other, a model that never saw either tells them
    apart by what is easy for it; that is no membership.

    Args:
        classes: `[n]`.
        scores: `[n]`.
        is_member: `[n]` bool.
    """
    by_class = np.argsort(classes, kind="stable")
    sides = is_member[by_class]

    def drawn(rng: np.random.Generator) -> Roc:
        inside = np.empty_like(is_member)
        inside[np.lexsort((rng.random(len(classes)), classes))] = sides
        return Roc.of(scores[inside], scores[~inside])

    return drawn


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


def _logits(
    model: nn.Module, params: Tensor, normalisation: Normalisation, examples: Split
) -> Tensor:
    """`[n, classes]` of the model `params` `[d]`, computed where that lies; on the CPU."""
    device = params.device
    flat = FlatModel(model, device, normalisation)
    flat.load(params)
    flat.module.eval()
    size = evaluation_batch(device, examples.x[:1].numel())
    batches = (examples.between(i, i + size).to(device) for i in range(0, len(examples), size))
    with torch.inference_mode():
        return torch.cat([flat.module(flat.arrange(batch)) for batch in batches]).cpu()


def _drawn(part: Split, most: int | None, seed: int, purpose: str) -> Split:
    """At most so many rows, in their order."""
    if most is None or most >= len(part):
        return part
    order = generator(seed, f"membership_{purpose}").permutation(len(part))
    return part.rows(torch.from_numpy(np.sort(order[:most])))


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
