"""FLDetector: who does not do what its last update, and the model's move since, make expected.

    expected_k = g_k(t') + H (w_t - w_t')          g = -delta; t': when client k was last there
    d_k = ||g_k(t) - expected_k||, over the round's mean;   score_k = mean of the last N d_k
    H: the Hessian of L-BFGS, from the last N moves of the model, w_j - w_{j-1}, and changes of the
       global gradient, g_j - g_{j-1}, with g_j = -(w_{j+1} - w_j)
    if the gap statistic finds more than one cluster of scores, k-means makes two of them, and the
    one with the larger mean is flagged

Source: Zhang, Cao, Jia and Gong, "FLDetector: Defending Federated Learning Against Model Poisoning
Attacks via Detecting Malicious Clients", KDD 2022, algorithms 1 to 3, section 4. Differences: the
paper flags once, throws the model away and trains again without the flagged; here a client is
flagged in every round in which its score says so, and training goes on. There every client is in
every round, t' = t - 1; here one that was away is held to the model that it was last sent, if that
was one of the last N. Distances are over the round's mean and not its sum, so that cohorts may
differ in size. The global gradient is read off the model, so any rule may have made it; the unit is
a server that adds the step as it is (`server_optimizer=sgd`, lr 1). The gap statistic is that of
Tibshirani et al. (`fedexp.detection.gap_statistic`); the authors' code averages before it takes
the logarithm. A row that is too long for its squares to be counted is flagged.

Its state holds an update of every client of the last N rounds, and N + 2 models. Breakdown point:
none is proven; who flips from the first round on is as consistent as who is honest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, final

import numpy as np
import torch
from torch import Tensor

from fedexp.core.checks import at_least
from fedexp.core.round_model import model_of
from fedexp.core.types import State, Updates, Verdict
from fedexp.detection.acting import check_action, countable, verdict
from fedexp.detection.gap_statistic import number_of_clusters
from fedexp.detection.k_means import k_means
from fedexp.detection.lbfgs import hessian_times
from fedexp.detection.sketch import count_sketch

FEWEST = 4  # scores: among fewer there are no two clusters
AT_ONCE = torch.finfo(torch.float64).max  # the score of a row that cannot be counted


@final
@dataclass(frozen=True)
class FLDetector:
    """Flags the cluster of clients whose updates are harder to predict from their own past.

    Args:
        window: N, pairs for the Hessian, and rounds whose distances a score averages.
        warm_up_rounds: first rounds without an opinion; at least 2.
        most_clusters: that the gap statistic may find.
        references: of the gap statistic.
        sketch_size: numbers that updates and models are sketched to; None: none, as in the paper.
        action: what becomes of a flagged row: "drop" or "report" (nothing).
        seed: of the sketch.
    """

    window: int
    warm_up_rounds: int
    most_clusters: int
    references: int
    sketch_size: int | None
    action: Literal["drop", "report"]
    seed: int

    follows_clients: ClassVar[bool] = True

    def __post_init__(self) -> None:
        at_least(1, window=self.window, most_clusters=self.most_clusters)
        at_least(1, references=self.references)
        at_least(2, warm_up_rounds=self.warm_up_rounds)
        if self.sketch_size is not None:
            at_least(1, sketch_size=self.sketch_size)
        check_action(self.action)
        at_least(0, seed=self.seed)

    @property
    def rounds_without_opinion(self) -> int:
        """In how many of the first rounds nobody can be flagged."""
        return self.warm_up_rounds

    def init(self, d: int) -> State:
        """Nobody seen yet."""
        k = d if self.sketch_size is None else self.sketch_size
        nobody = torch.zeros(0, dtype=torch.int64)
        return {
            "rounds": torch.zeros((), dtype=torch.int64),
            "at": torch.zeros((), dtype=torch.int64),  # models seen, those that stayed counted once
            "models": torch.zeros(0, k),
            "clients": nobody,
            "sent": torch.zeros(0, k),
            "sent_at": nobody,
            "distances": torch.zeros(0, self.window, dtype=torch.float64),  # the latest first
            "counts": nobody,
        }

    def __call__(
        self, updates: Updates, state: State, rng: np.random.Generator
    ) -> tuple[Verdict, State]:
        """Scores and trust of the rows, and the next state."""
        model = model_of(updates.model)
        usable = countable(updates.matrix)
        rows = self._short(model.deltas(updates.matrix))
        models, at = self._models(self._short(model.params[None])[0], state)
        past = _read(state)
        away = _distances(updates.client_ids, rows, usable, models, at, past)
        usual = sum(away.values()) / max(len(away), 1)
        for client, sent in _rows(updates.client_ids, rows, usable):
            before = past[client].distances if client in past else ()
            latest = (away[client] / usual if usual else 0.0,) if client in away else ()
            past[client] = _Past(sent, at, (*latest, *before)[: self.window])
        scores = torch.tensor(
            [_score(past.get(c)) for c in updates.client_ids], dtype=torch.float64
        )
        scores[~usable] = AT_ONCE
        rounds = int(state["rounds"]) + 1
        known = {name: one for name, one in past.items() if at - one.at <= self.window}
        after = _written(known, state, models, at, rounds)
        if rounds <= self.warm_up_rounds or int((scores < AT_ONCE).sum()) < FEWEST:
            return Verdict.no_opinion(len(updates)), after
        return verdict(scores, self._threshold(scores, rng), self.action), after

    def _short(self, rows: Tensor) -> Tensor:
        """Rows `[n, d]` as they are compared, a copy on the CPU: `[n, k]` float32."""
        if self.sketch_size is None:
            return rows.detach().cpu().clone()
        return count_sketch(rows, self.sketch_size, self.seed).float().cpu()

    def _models(self, current: Tensor, state: State) -> tuple[list[Tensor], int]:
        """The latest models up to the round's, and which one that is; one that stayed is one."""
        models = list(state["models"])
        at = int(state["at"])
        if not models or not torch.equal(models[-1], current):
            models, at = [*models, current], at + 1
        return models[-self.window - 2 :], at

    def _threshold(self, scores: Tensor, rng: np.random.Generator) -> float:
        """The largest score of those who are not flagged."""
        counted = scores[scores < AT_ONCE].numpy()[:, None]
        k = number_of_clusters(counted, self.most_clusters, self.references, rng)
        if k == 1:
            return float(counted.max())
        labels = k_means(counted[None], 2, rng)[0][0]
        means = [counted[labels == cluster].mean() for cluster in (0, 1)]
        return float(counted[labels == int(np.argmin(means))].max())


@dataclass(frozen=True)
class _Past:
    """What is known of a client."""

    sent: Tensor  # [k] its last update
    at: int  # from which of the models
    distances: tuple[float, ...]  # the latest first


def _distances(
    clients: tuple[int, ...],
    rows: Tensor,
    usable: Tensor,
    models: list[Tensor],
    at: int,
    past: dict[int, _Past],
) -> dict[int, float]:
    """How far each client is from what was expected of it; without whom nothing is known of."""
    if len(models) < 3:
        return {}
    moves = torch.stack(models).double().diff(dim=0)
    steps, changes = moves[:-1], moves[:-1] - moves[1:]
    bent: dict[int, Tensor] = {}  # H (w_t - w_t') by t'
    away = {}
    for client, row in _rows(clients, rows, usable):
        known = past.get(client)
        if known is None or at - known.at >= len(models):
            continue
        if known.at not in bent:
            since = models[-1].double() - models[-1 - (at - known.at)].double()
            bent[known.at] = hessian_times(steps, changes, since)
        # -g throughout: an update is a step down.
        expected = known.sent.double() - bent[known.at]
        away[client] = float((row.double() - expected).norm())
    return away


def _rows(clients: tuple[int, ...], rows: Tensor, usable: Tensor) -> list[tuple[int, Tensor]]:
    """Clients with their rows; without mixtures of clients, and rows that cannot be counted."""
    each = zip(clients, rows, usable.tolist(), strict=True)
    return [(client, row) for client, row, good in each if good and client >= 0]


def _score(past: _Past | None) -> float:
    if past is None or not past.distances:
        return float("nan")
    return sum(past.distances) / len(past.distances)


def _read(state: State) -> dict[int, _Past]:
    counts = state["counts"].tolist()
    distances = [d[:n] for d, n in zip(state["distances"].tolist(), counts, strict=True)]
    each = zip(state["sent"], state["sent_at"].tolist(), map(tuple, distances), strict=True)
    return {
        client: _Past(*one) for client, one in zip(state["clients"].tolist(), each, strict=True)
    }


def _written(
    past: dict[int, _Past], state: State, models: list[Tensor], at: int, rounds: int
) -> State:
    names = sorted(past)
    distances = torch.zeros(len(names), state["distances"].shape[1], dtype=torch.float64)
    for row, name in zip(distances, names, strict=True):
        row[: len(past[name].distances)] = torch.tensor(past[name].distances, dtype=torch.float64)
    sent = [past[name].sent for name in names]
    return {
        "rounds": torch.tensor(rounds),
        "at": torch.tensor(at),
        "models": torch.stack(models),
        "clients": torch.tensor(names, dtype=torch.int64),
        "sent": torch.stack(sent) if sent else state["sent"][:0],
        "sent_at": torch.tensor([past[name].at for name in names], dtype=torch.int64),
        "distances": distances,
        "counts": torch.tensor([len(past[name].distances) for name in names], dtype=torch.int64),
    }
