"""Who points away from the others, or from its own past: needs no honest rounds to learn from.

    a_k(t) = median over j != k of cos(u_k, u_j)          how client k agrees with the round
    Z_k    = sum_t w_t a_k(t) / sqrt(sum_t w_t^2 s_t^2)   over the rounds t that it took part in,
    M_k    = sum_t w_t a_k(t) / sum_t w_t^2               in deviations, and as a share: 1 is usual
    h_k(t) = cos(u_k, where its accepted rows of before pointed) - min(0, c_t)

with u_k the row's sketch of m numbers at length 1; c_t the median of the cosines with the own past;
w_t = max(0, median_k a_k(t)), how far the round agrees at all; s_t and r_t the robust deviations of
a and of h over the clients of the round, from those above the median (attackers lie below), not
below the sketch's own, 1 / sqrt(m). A row is flagged where

    score = max(min(-Z_k / z, -M_k / MARGIN), min(-h_k / (r_t z), -h_k / (c_t MARGIN))) > 1,

z = the normal quantile of 1 - false_alarm_rate / 2: where its client, over all its rounds,
disagrees with the cohort by more than chance and at least MARGIN times as much as others agree, or
the row points against what the client sent before, as plainly. A round in which honest clients
agree (the first ones: a cosine of 0.27 in round 1 of MNIST under Dirichlet 0.3, and 0.01 in round
8) weighs more than one in which they do not, so that whoever flips from the first round on is held
to what it did there: there is no warm-up, and nobody is learned as honest. Whoever turns later is
held to its own past, which grows by accepted rows only.

The rate: where an honest client's mean agreement is at least nothing, and its deviations are normal
and as large as the cohort's, either score is above z in at most false_alarm_rate / 2 of rows. That
is an assumption about clients, and false where honest clients pull against each other: a hospital
with hardly any patient of the commoner of two classes looks like one that flips, and no angle tells
them apart. Blind to lengths.

The idea of a client's own past is FLDetector's (Zhang, Cao, Jia and Gong, KDD 2022), that of angles
between clients FoolsGold's and FLAME's; the accumulated evidence is a matched filter (North 1943),
whose weights are the round's own agreement. The statistic and the combination are ours.
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
from fedexp.detection.features import DECAY, shorten

_LEAST = 1e-30
MARGIN = 0.5  # of the usual agreement: who is turned around by less is left alone
FEWEST = 4  # rows a round: among fewer there is no majority to differ from


@final
@dataclass(frozen=True)
class Consistency:
    """Flags rows whose clients are not consistent with the cohort, or with themselves.

    Its state grows with the clients seen: two numbers and a sketch each. It has to know who sent a
    row, so it does not go with secure aggregation.

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
        from scipy.stats import norm

        return float(norm.isf(self.false_alarm_rate / 2))

    def init(self, d: int) -> State:
        """Nobody seen yet."""
        return {
            "clients": torch.zeros(0, dtype=torch.int64),
            "evidence": torch.zeros(0, 3, dtype=torch.float64),  # sum of w a, w^2 s^2 and w^2
            "habits": torch.zeros(0, self.sketch_size),
        }

    def __call__(
        self, updates: Updates, state: State, rng: np.random.Generator
    ) -> tuple[Verdict, State]:
        """Scores and trust of the rows, and the next state; no opinion of fewer than four rows."""
        units = shorten(updates.matrix, self.sketch_size, self.seed).units
        past = _Past.of(state, updates.client_ids, self.sketch_size)
        if len(updates) < FEWEST:
            return Verdict.no_opinion(len(updates)), state
        floor = 1 / math.sqrt(self.sketch_size)
        evidence = past.evidence + _evidence(units, floor)
        z = self.quantile
        deviations = -evidence[:, 0] / evidence[:, 1].clamp_min(_LEAST).sqrt()
        share = -evidence[:, 0] / evidence[:, 2].clamp_min(_LEAST)
        against_others = torch.minimum(deviations / z, share / MARGIN)
        scores = torch.maximum(against_others, _against_the_own_past(units, past, floor, z))
        verdict = Verdict(scores, 1.0, self._trust(scores))
        habits = past.habits.clone()
        kept = ~verdict.flagged
        habits[kept] = DECAY * habits[kept] + (1 - DECAY) * units[kept]
        return verdict, past.after(evidence, habits)

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
    """What is known of a round's senders, in the rows' order; zeros of whom nothing is known."""

    state: State
    clients: tuple[int, ...]
    evidence: Tensor  # [n, 3] float64
    habits: Tensor  # [n, k] float64

    @classmethod
    def of(cls, state: State, clients: tuple[int, ...], k: int) -> _Past:
        places = {client: i for i, client in enumerate(state["clients"].tolist())}
        evidence = torch.zeros(len(clients), 3, dtype=torch.float64)
        habits = torch.zeros(len(clients), k, dtype=torch.float64)
        for row, client in enumerate(clients):
            if client in places:
                evidence[row] = state["evidence"][places[client]]
                habits[row] = state["habits"][places[client]].double()
        return cls(state, clients, evidence, habits)

    def after(self, evidence: Tensor, habits: Tensor) -> State:
        """With what the round has added; of mixtures of clients nothing is kept."""
        known = zip(self.state["evidence"], self.state["habits"], strict=True)
        kept = dict(zip(self.state["clients"].tolist(), known, strict=True))
        for client, own, habit in zip(self.clients, evidence, habits.float(), strict=True):
            if client >= 0:
                kept[client] = (own, habit)
        if not kept:
            return self.state
        names = sorted(kept)
        return {
            "clients": torch.tensor(names, dtype=torch.int64),
            "evidence": torch.stack([kept[name][0] for name in names]),
            "habits": torch.stack([kept[name][1] for name in names]),
        }


def _evidence(units: Tensor, floor: float) -> Tensor:
    """What one round says of its rows `[n, k]`: w a, w^2 s^2 and w^2, `[n, 3]` float64."""
    cosines = units @ units.T
    others = ~torch.eye(len(units), dtype=torch.bool)
    agreement = cosines[others].view(len(units), -1).quantile(0.5, dim=1)
    weight = agreement.quantile(0.5).clamp_min(0)
    deviation = _deviation(agreement, floor)
    squares = torch.stack([(weight * deviation).square(), weight.square()])
    return torch.cat([(weight * agreement)[:, None], squares.expand(len(units), 2)], dim=1)


def _against_the_own_past(units: Tensor, past: _Past, floor: float, z: float) -> Tensor:
    """The score `[n]` of rows beside their own past; minus infinity of whom nothing is known."""
    lengths = past.habits.norm(dim=1)
    known = lengths > 0
    scores = torch.full((len(units),), -torch.inf, dtype=torch.float64)
    if known.any():
        cosines = (units[known] * past.habits[known]).sum(dim=1) / lengths[known]
        usual = cosines.quantile(0.5)
        against = usual.clamp_max(0) - cosines
        share = against / usual.clamp_min(floor)
        scores[known] = torch.minimum(against / (z * _deviation(cosines, floor)), share / MARGIN)
    return scores


def _deviation(values: Tensor, floor: float) -> Tensor:
    """Robust, from the values at or above the median: attackers lie below it."""
    above = values - values.quantile(0.5)
    return (1.4826 * above[above >= 0].quantile(0.5)).clamp_min(floor)
