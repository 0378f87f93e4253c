"""The server's own membership inference: which examples does a client's update speak of?

The honest-but-curious server of federated learning sees an update of every client in every round,
or, behind secure aggregation, sums of them. For each example in question it asks how much each row
lowers its loss (`fedexp.leakage.membership.slopes`), and whether the row of the client in question
does so more than the other rows (`fedexp.leakage.membership.others`). No model is trained.

    client known    is this example among those of this client? Members and non-members of a
                    client have the same classes: this is the verdict.
    ..., classes not matched    the same, against non-members asked of clients drawn by lot
    client unknown  the largest score over all clients: is it anybody's?
    wrong client    the control: asked of another client, whose row has not seen the example
    other client    what a participant sees who gets nothing but the models sent out: their steps
    source          the client with the largest score: who holds a member? Of equals, as clients in
                    one sum are, one by lot

What is seen is what the channel delivers: rows as they were clipped, noised, compressed or summed
on their way. Noise that the server itself adds protects against others, not against the server.

Sources: see the two modules; source inference: Hu, Salcic, Sun, Dobbie and Zhang, "Source Inference
Attacks in Federated Learning", IEEE ICDM 2021.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np

from fedexp.core.checks import InputError, at_least
from fedexp.core.examples import Dataset
from fedexp.core.findings import Figure, Findings
from fedexp.core.observer import Observer
from fedexp.core.rng import generator
from fedexp.leakage.adversaries import OTHER_CLIENT, server_of
from fedexp.leakage.intervals import share_interval
from fedexp.leakage.membership.answers import accuracies
from fedexp.leakage.membership.asked import Asked
from fedexp.leakage.membership.judged import Judged, class_figures
from fedexp.leakage.membership.others import OTHERS, asked_of, of_every_client
from fedexp.leakage.membership.pool import caveats
from fedexp.leakage.membership.roc import Roc
from fedexp.leakage.membership.seen import Seen, read_seen
from fedexp.leakage.membership.seen_in_record import seen_in_record
from fedexp.leakage.membership.watching import Watching
from fedexp.leakage.study import Progress, refuse_several_labels
from fedexp.leakage.victim import Victim

KNOWN, UNKNOWN = "client known", "client unknown"
NOT_MATCHED, CONTROL = "client known, classes not matched", "wrong client (control)"
ALONE = "client known, one round alone"
MOST_ALONE = 8  # rounds that are also judged by themselves


@final
@dataclass(frozen=True)
class ServerMembership:
    """The study, and who watches the run for it.

    Args:
        examples: members asked about at most, and as many non-members.
        permutations: shuffles behind the null interval, at least 40.
    """

    examples: int
    permutations: int

    def __post_init__(self) -> None:
        at_least(1, examples=self.examples)
        at_least(40, permutations=self.permutations)

    def watch(self, victim: Victim) -> Observer:
        """The server that watches; raises InputError where `Asked.of` does."""
        return Watching(victim, Asked.of(victim, self.examples))

    def __call__(self, victim: Victim, progress: Progress) -> Findings:
        """Score what was seen, and judge; raises InputError where nothing was."""
        asked = Asked.of(victim, self.examples)
        seen = self._seen(victim, asked)
        progress(0.5)
        view = _View.of(seen, asked)
        judged = {
            subject: Judged.of(
                scores[chosen],
                asked.is_member[chosen],
                self.permutations,
                generator(victim.seed, "server_membership_null", place),
            )
            for place, (subject, (scores, chosen)) in enumerate(view.questions().items())
        }
        right = accuracies(victim, victim.models[victim.last_round].to(victim.device))
        by_class, of_classes = class_figures(
            KNOWN,
            max(seen),
            view.known[view.took_part],
            asked.is_member[view.took_part],
            asked.examples.y.numpy()[view.took_part],
            victim.pixels.class_names,
        )
        source = _Source.of(view, generator(victim.seed, "server_membership_source"))
        progress(1.0)
        headline = {
            **judged[KNOWN].headline(right),
            **{f"auc_{_key(s)}": judged[s].figures["auc"] for s in judged if s != KNOWN},
            **source.headline(),
            "rounds_seen": len(seen),
        }
        return Findings(
            figures=[
                *(row for subject in judged for row in judged[subject].rows(subject, max(seen))),
                *by_class,
                *view.alone(),
            ],
            headline=headline,
            arrays={**judged[KNOWN].arrays(), **source.arrays()},
            conclusions=[
                _verdict(judged[KNOWN]),
                *judged[KNOWN].conclusions(KNOWN),
                *(_of_another_question(s, judged[s]) for s in judged if s != KNOWN),
                _control(judged.get(CONTROL)),
                *of_classes,
                *source.conclusions(),
                *self._what_was_seen(victim, seen, asked, view),
                *caveats(victim, headline),
            ],
            adversary=_adversary(victim),
            adversaries={"": server_of(victim), OTHER_CLIENT: OTHER_CLIENT},
            seconds_before=sum(round.seconds for round in seen.values()),
        )

    def check_data(self, dataset: Dataset) -> None:
        """Raise InputError unless every example has one class."""
        refuse_several_labels(dataset)

    def _seen(self, victim: Victim, asked: Asked) -> dict[int, Seen]:
        """The rounds that were watched, or else those that the run's record of updates shows."""
        rounds = range(1, victim.last_round + 1)
        kept = {round: read_seen(victim.folder, round, asked) for round in rounds}
        seen = {round: found for round, found in kept.items() if found is not None}
        return seen or seen_in_record(victim, asked)

    def _what_was_seen(
        self, victim: Victim, seen: dict[int, Seen], asked: Asked, view: _View
    ) -> list[str]:
        remarks = [
            f"Seen: {len(seen)} of {victim.last_round} rounds. Asked: {asked.pairs:,} members and "
            f"as many non-members, {int(view.took_part.sum()) // 2:,} of each of clients that took "
            "part."
        ]
        n = int(view.took_part.sum()) // 2
        for rate in (0.01, 0.001):
            if 1 <= rate * n < 10:
                remarks.append(
                    f"A rate of {100 * rate:g} % is {int(rate * n)} of {n:,} non-members: ten, for "
                    f"a figure to rely on, take {10 / rate:,.0f} (examples, train_examples)."
                )
        return remarks


@final
@dataclass(frozen=True)
class _View:
    """What was seen, made into scores `[2m]` of every question."""

    asked: Asked
    rounds: dict[int, Seen]
    tables: dict[int, tuple[np.ndarray, np.ndarray]]  # slopes, and the row of every client
    clients: np.ndarray  # who took part
    took_part: np.ndarray  # [2m] bool, examples of clients who did
    known: np.ndarray  # [2m]
    everybody: np.ndarray  # [clients, 2m]

    @classmethod
    def of(cls, rounds: dict[int, Seen], asked: Asked) -> _View:
        tables = {
            number: (seen.slopes, seen.row_of_clients(asked.n_clients))
            for number, seen in rounds.items()
            if len(seen.slopes)
        }
        if not tables:
            raise InputError(
                "no row that reached the server can be read", "leakage", "server_membership"
            )
        there = [row_of >= 0 for _, row_of in tables.values()]
        clients = np.flatnonzero(np.any(there, axis=0))
        return cls(
            asked=asked,
            rounds=rounds,
            tables=tables,
            clients=clients,
            took_part=np.isin(asked.client, clients),
            known=asked_of(tables.values(), asked.client),
            everybody=of_every_client(tables.values(), clients, len(asked)),
        )

    def questions(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """By subject, scores `[2m]` and the examples `[2m]` bool that are judged by them."""
        asked, tables = self.asked, self.tables.values()
        found: dict[str, tuple[np.ndarray, np.ndarray]] = {KNOWN: (self.known, self.took_part)}
        lot = np.isin(asked.by_lot, self.clients) & self.took_part
        found[NOT_MATCHED] = asked_of(tables, asked.by_lot), lot
        found[UNKNOWN] = self.everybody.max(axis=0), self.took_part
        rows = max(len(slopes) for slopes, _ in tables)
        if rows >= OTHERS + 2:  # the one asked, the holder's, and two to compare with
            wrong = np.isin(asked.wrong, self.clients) & self.took_part
            found[CONTROL] = asked_of(tables, asked.wrong, never=asked.client), wrong
        steps = [seen.step[0] for seen in self.rounds.values() if len(seen.step)]
        theirs = self.took_part & (asked.client != self.clients[0])  # whoever asks knows its own
        if steps and theirs.any():
            found[OTHER_CLIENT] = np.stack(steps).sum(axis=0, dtype=np.float64), theirs
        return {name: (s, chosen) for name, (s, chosen) in found.items() if _both(asked, chosen)}

    def alone(self) -> list[Figure]:
        """What single rounds tell, of a few of them."""
        numbers = list(self.tables)
        places = np.unique(np.linspace(0, len(numbers) - 1, min(len(numbers), MOST_ALONE)).round())
        figures = []
        for number in (numbers[int(place)] for place in places):
            _, row_of = self.tables[number]
            chosen = row_of[self.asked.client] >= 0
            if not _both(self.asked, chosen):
                continue
            scores = asked_of([self.tables[number]], self.asked.client)[chosen]
            inside = self.asked.is_member[chosen]
            values = Roc.of(scores[inside], scores[~inside]).figures()
            figures += [Figure(ALONE, number, 0, name, value) for name, value in values.items()]
        return figures


@final
@dataclass(frozen=True)
class _Source:
    """Who is said to hold the members, and who does."""

    clients: np.ndarray  # [k] who took part
    confusion: np.ndarray  # [k, k] int64: who holds it, by who is named
    right: np.ndarray  # [m] bool
    by_class: float  # how often it is right to name the client that holds most of the class

    @classmethod
    def of(cls, view: _View, rng: np.random.Generator) -> _Source:
        inside = view.asked.is_member & view.took_part
        holder = np.searchsorted(view.clients, view.asked.client[inside])
        k = len(view.clients)
        scores = view.everybody[:, inside]
        lots = np.where(scores == scores.max(axis=0), rng.random(scores.shape), -1.0)
        named = lots.argmax(axis=0)
        confusion = np.bincount(holder * k + named, minlength=k * k).reshape(k, k)
        labels = view.asked.examples.y.numpy()[inside]
        most = sum(np.bincount(holder[labels == c]).max() for c in np.unique(labels))
        return cls(view.clients, confusion, named == holder, float(most) / len(holder))

    def headline(self) -> dict[str, float]:
        found = share_interval(self.right)
        return {
            "source_accuracy": found.mean,
            "source_accuracy_low": found.low,
            "source_accuracy_high": found.high,
            "source_accuracy_by_class_alone": self.by_class,
        }

    def arrays(self) -> dict[str, np.ndarray]:
        return {"source_confusion": self.confusion, "source_clients": self.clients}

    def conclusions(self) -> list[str]:
        found, k = share_interval(self.right), len(self.clients)
        return [
            f"Source: {100 * found.mean:.1f} % [{100 * found.low:.1f}, {100 * found.high:.1f}] of "
            f"the members are ascribed to the client that holds them; {100 / k:.1f} % by guessing "
            f"among {k}, {100 * self.by_class:.1f} % by naming who holds most of the class."
        ]


def _both(asked: Asked, chosen: np.ndarray) -> bool:
    """Whether there are members and non-members among the examples chosen."""
    return bool((chosen & asked.is_member).any() and (chosen & ~asked.is_member).any())


def _key(subject: str) -> str:
    """A subject as part of a metric's name."""
    return subject.replace(",", "").replace("(", "").replace(")", "").replace(" ", "_")


def _of_another_question(subject: str, judged: Judged) -> str:
    (said, *_) = judged.conclusions(subject)
    if subject == NOT_MATCHED:
        return f"{said} It may read the clients' classes, and no members."
    return said


def _verdict(known: Judged) -> str:
    """The answer, classes matched."""
    figures = known.figures
    auc, low, high = (figures[f"auc{end}"] for end in ("", "_null_low", "_null_high"))
    few = figures["tpr_at_0.1_percent_fpr"]
    named = "" if math.isnan(few) else f", and names {100 * few:.1f} % at one false alarm in 1,000"
    if auc > high:
        return f"Verdict: the server tells members from others of the same class{named}."
    kept = figures.get("tpr_at_0.1_percent_fpr_null_high", math.inf)
    if few > kept:
        return f"Verdict: the server does not tell members on average, but some{named[5:]}."
    return (
        "Verdict: the server does not tell members from others of the same class "
        f"({low:.3f} to {high:.3f} is chance)."
    )


def _control(control: Judged | None) -> str:
    if control is None:
        return "There is no control: it takes four rows a round, of which one is another client's."
    figures = control.figures
    inside = figures["auc_null_low"] <= figures["auc"] <= figures["auc_null_high"]
    if inside:
        return "The control, another client, lies inside its null interval, as it has to."
    return "The control, another client, lies OUTSIDE its null interval: mistrust the figures."


def _adversary(victim: Victim) -> str:
    sums = victim.experiment.channel.sums
    sees = "sums over clients, and no client's row" if sums else "every client's row"
    return (
        f"An honest-but-curious server: it keeps to the protocol, and sees {sees} in every round, "
        "as the channel delivers them, beside the model that it sent out. It is asked of single "
        "labelled examples whether a client trained on them. It trains nothing."
    )
