"""Who pulls away from the others, or from its own past: needs no honest rounds to learn from.

    a_k(t) = median over j != k of cos(u_k, u_j)          how client k agrees with the round
    b_k(t) = cos(u_k(t') - u_k(t), how the others moved the model since t')   how it pushes back
    M_k, o_k, e_k: both over all rounds of client k, put together as a share (1 is usual, -1 turned
                   around), and its deviation by chance and in earnest (`evidence`)
    h_k(t) = cos(u_k, where its accepted rows of before pointed)

with u_k the row's sketch of m numbers, t' the round that client k was in before (`answers`), c_t
the median of the cosines with the own past, and r_t their robust deviation, from those above the
median, not below the sketch's own, 1 / sqrt(m). A row is flagged where

    score = max(min((1 - M_k) / (o_k z), -M_k / (MARGIN e_k)),
                min(-h_k / (r_t z), -h_k / (c_t TURN)) where c_t > r_t z) > 1,

z = the normal quantile of 1 - false_alarm_rate / 2: where its client, over all its rounds, is not
as others are by more than chance and is on the other side of nothing, or the row points against
what the client sent before, as plainly. A round in which honest clients agree (the first ones: a
cosine of 0.27 in round 1 of MNIST under Dirichlet 0.3, and 0.01 in round 8) weighs more than one in
which they do not, so that whoever flips from the first round on is held to what it did there: there
is no warm-up, and nobody is learned as honest. Whoever turns later is held to its own past, which
grows by accepted rows only; in rounds in which clients have no habit that a turn could be told from
(with SCAFFOLD, whose corrections undo it, or in noise) that says nothing.

Angles with others are all there is in round 1, and mislead where honest clients pull against each
other: a hospital with hardly any patient of the commoner of two classes looks like one that flips.
How clients push back does not ask for their classes, and takes over where it says more: angles are
never relied on as if honest clients were nearer to each other than AT_ODDS. It needs the round's
model (`Updates.model`); of rows alone only the angles are read.

The rate: where what a client does is the cohort's usual and chance, either score is above 1 in at
most false_alarm_rate / 2 of rows. How much honest clients differ in earnest is an estimate, with no
such promise. Blind to lengths, but a row that is too long for its squares to be counted is flagged
at once. A client that trains on wrong labels pushes back as an honest one
does: only its angles can tell.

The idea of a client's own past is FLDetector's (Zhang, Cao, Jia and Gong, KDD 2022), that of angles
between clients FoolsGold's and FLAME's. The statistics and the combination are ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
import torch
from torch import Tensor

from fedexp.core.checks import InputError, at_least, one_of
from fedexp.core.types import State, Updates, Verdict
from fedexp.detection.acting import countable
from fedexp.detection.answers import answers, own_parts
from fedexp.detection.evidence import COLUMNS, FEWEST, Evidence, deviation_above, together
from fedexp.detection.features import DECAY
from fedexp.detection.sketch import count_sketch

AT_ODDS = 1.0  # of the usual agreement, by which an honest client may lack it for its classes
MARGIN = 0.3  # deviations on the other side of nothing, before a client is accused
TURN = 0.5  # of the usual cosine with the own past: who turns by less is left alone
AT_ONCE = torch.finfo(torch.float64).max  # the score of a row that cannot be counted
_LEAST = 1e-30


@final
@dataclass(frozen=True)
class Consistency:
    """Flags rows whose clients are not consistent with the cohort, or with themselves.

    Its state grows with the clients seen: three sketches and six numbers each. Of sums over groups
    (secure aggregation) nobody knows who sent them: each round is judged by its angles alone.

    Args:
        false_alarm_rate: of an honest row, above 0 and below 1.
        sketch_size: numbers that a row is sketched to before it is compared.
        action: what becomes of a flagged row: "drop", "down_weight" (its weight over the score) or
            "report" (nothing).
        seed: of the sketch.
    """

    false_alarm_rate: float
    sketch_size: int
    action: Literal["drop", "down_weight", "report"]
    seed: int

    def __post_init__(self) -> None:
        if not 0 < self.false_alarm_rate < 1:
            reason = "must be above 0 and below 1"
            raise InputError(reason, "false_alarm_rate", self.false_alarm_rate)
        at_least(1, sketch_size=self.sketch_size)
        one_of(("drop", "down_weight", "report"), action=self.action)
        at_least(0, seed=self.seed)

    @property
    def down_weights(self) -> bool:
        """Whether flagged rows keep some of their weight, which the rule has to heed."""
        return self.action == "down_weight"

    @property
    def quantile(self) -> float:
        """z: either of two scores exceeds it in half of the false alarms."""
        from scipy.special import ndtri  # in place of scipy.stats, whose import takes a second

        return -float(ndtri(self.false_alarm_rate / 2))

    def init(self, d: int) -> State:
        """Nobody seen yet."""
        return _Past.empty(self.sketch_size)

    def __call__(
        self, updates: Updates, state: State, rng: np.random.Generator
    ) -> tuple[Verdict, State]:
        """Scores and trust of the rows, and the next state; no opinion of fewer than four rows."""
        model = updates.model
        at = None if model is None else self._short(model.params[None])[0]
        past = _Past.of(state, updates.client_ids).moved_to(at)
        if len(updates) < FEWEST:
            return Verdict.no_opinion(len(updates)), past.state
        rows = self._short(updates.matrix if model is None else model.deltas(updates.matrix))
        units = rows / rows.norm(dim=1, keepdim=True).clamp_min(_LEAST)
        floor = 1 / math.sqrt(self.sketch_size)
        everybody = torch.ones(len(rows), dtype=torch.bool)
        agree = past.agree.with_round(_agreement(units), everybody, floor)
        answer = past.answer
        if at is not None:
            answer = answer.with_round(*answers(past.sent, rows, past.moved(at)), floor)
        scores = torch.maximum(
            self._against_the_others(agree, answer),
            _against_the_own_past(units, past.habits, floor, self.quantile),
        )
        usable = countable(updates.matrix)
        scores[~usable] = AT_ONCE
        trust = self._trust(scores)
        if self.action != "report":
            trust[~usable] = 0  # down-weighted, NaN would still be NaN
        verdict = Verdict(scores, 1.0, trust)
        habits = past.habits.clone()
        kept = ~verdict.flagged
        habits[kept] = DECAY * habits[kept] + (1 - DECAY) * units[kept]
        return verdict, past.after(agree, answer, habits, rows, at)

    def _short(self, rows: Tensor) -> Tensor:
        """Sketches `[n, k]` float64 on the CPU; of a row that cannot be counted nothing is left."""
        sketch = count_sketch(rows, self.sketch_size, self.seed).cpu()
        return torch.where(sketch.isfinite().all(dim=1, keepdim=True), sketch, 0.0)

    def _against_the_others(self, agree: Evidence, answer: Evidence) -> Tensor:
        share, chance, earnest = together((agree, answer), self.quantile)
        return torch.minimum((1 - share) / (chance * self.quantile), -share / (MARGIN * earnest))

    def _trust(self, scores: Tensor) -> Tensor:
        trust = torch.ones_like(scores)
        flagged = scores > 1
        if self.action == "drop":
            trust[flagged] = 0
        elif self.action == "down_weight":
            trust[flagged] = (1 / scores[flagged]).clamp(0, 1)
        return trust


@dataclass(frozen=True)
class _Past:
    """What is known of a round's senders, in the rows' order; zeros of whom nothing is known.

    `at` is the model that a client's last row was sent from, and from the next round on that model
    with the row's own part in it, which is known by then (`own`).
    """

    state: State
    clients: tuple[int, ...]
    places: tuple[int, ...]  # of the rows' clients in the state; -1: not there

    @staticmethod
    def empty(k: int) -> State:
        return {
            "clients": torch.zeros(0, dtype=torch.int64),
            "agree": torch.zeros(0, COLUMNS, dtype=torch.float64),
            "answer": torch.zeros(0, COLUMNS, dtype=torch.float64),
            "habits": torch.zeros(0, k),
            "sent": torch.zeros(0, k),
            "at": torch.zeros(0, k),
            "own": torch.zeros(0, dtype=torch.bool),
        }

    @classmethod
    def of(cls, state: State, clients: tuple[int, ...]) -> _Past:
        if "evidence" in state:  # of a run from before answers were asked for
            habits, c = state["habits"], len(state["clients"])
            nothing = cls.empty(habits.shape[1])
            unasked = {name: x.new_zeros(c, *x.shape[1:]) for name, x in nothing.items()}
            own = torch.ones(c, dtype=torch.bool)
            before = {"clients": state["clients"], "agree": state["evidence"], "habits": habits}
            state = {**unasked, **before, "own": own}
        known = {client: place for place, client in enumerate(state["clients"].tolist())}
        return cls(state, clients, tuple(known.get(client, -1) for client in clients))

    def _of_rows(self, name: str) -> Tensor:
        values, places = self.state[name], torch.tensor(self.places)
        rows = torch.zeros(len(places), *values.shape[1:], dtype=torch.float64)
        rows[places >= 0] = values[places[places >= 0]].double()
        return rows

    @property
    def agree(self) -> Evidence:
        return Evidence(self._of_rows("agree"), apart=AT_ODDS)

    @property
    def answer(self) -> Evidence:
        return Evidence(self._of_rows("answer"))

    @property
    def habits(self) -> Tensor:
        """Where accepted rows pointed, `[n, k]`."""
        return self._of_rows("habits")

    @property
    def sent(self) -> Tensor:
        """The last rows, `[n, k]`."""
        return self._of_rows("sent")

    def moved(self, to: Tensor) -> Tensor:
        """What others did to the model `[k]` since a client's last row, `[n, k]`."""
        return to - self._of_rows("at")

    def moved_to(self, to: Tensor | None) -> _Past:
        """With the own part of those who were in the last round, told from the move since."""
        latest = ~self.state["own"]
        if to is None or not latest.any():
            return self
        at, rows = self.state["at"].clone(), self.state["sent"][latest].double()
        started = at[latest].double()  # all of them from the same model
        at[latest] = (started + own_parts(rows, to - started[0])).float()
        state = {**self.state, "at": at, "own": torch.ones_like(latest)}
        return _Past(state, self.clients, self.places)

    def after(
        self, agree: Evidence, answer: Evidence, habits: Tensor, rows: Tensor, at: Tensor | None
    ) -> State:
        """With what the round has added; of mixtures of clients nothing is kept."""
        single = torch.tensor([client >= 0 for client in self.clients])
        nowhere = torch.zeros_like(rows[0])
        added = {
            "clients": torch.tensor(self.clients, dtype=torch.int64),
            "agree": agree.sums,
            "answer": answer.sums,
            "habits": habits.float(),
            "sent": rows.float() if at is not None else torch.zeros_like(rows).float(),
            "at": (nowhere if at is None else at).float().expand(len(rows), -1),
            "own": torch.full((len(rows),), at is None),
        }
        others = torch.isin(self.state["clients"], added["clients"], invert=True)
        state = {name: torch.cat([self.state[name][others], added[name][single]]) for name in added}
        order = state["clients"].argsort()
        return {name: values[order] for name, values in state.items()}


def _agreement(units: Tensor) -> Tensor:
    """The median cosine `[n]` of every row `[n, k]` with the others."""
    others = ~torch.eye(len(units), dtype=torch.bool)
    return (units @ units.T)[others].view(len(units), -1).quantile(0.5, dim=1)


def _against_the_own_past(units: Tensor, habits: Tensor, floor: float, z: float) -> Tensor:
    """The score `[n]` of rows beside their own past; minus infinity of whom nothing is known."""
    lengths = habits.norm(dim=1)
    known = lengths > 0
    scores = torch.full((len(units),), -torch.inf, dtype=torch.float64)
    if not known.any():
        return scores
    cosines = (units[known] * habits[known]).sum(dim=1) / lengths[known]
    usual = cosines.quantile(0.5)
    chance = z * deviation_above(cosines, floor)
    if usual > chance:
        scores[known] = torch.minimum(-cosines / chance, -cosines / (TURN * usual))
    return scores
