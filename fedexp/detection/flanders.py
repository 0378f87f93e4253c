"""FLANDERS: forecast every client's next model, and drop those that are furthest from it.

    X_t ~ A X_{t-1} B^T         X_t [n, s]: s numbers of each client's local model after round t
    A, B: alternating ridge regression over the last l rounds, with alpha and beta on the diagonal
    score_k = ||x_k - (A X_{t-1} B^T)_k||^2;       the assumed_malicious rows of largest score go

Source: Gabrielli, Belli, Matrullo, Miori and Tolomei, "Protecting Federated Learning from Extreme
Model Poisoning Attacks via Multidimensional Time Series Anomaly Detection", arXiv:2303.16668, 2023,
section 4, whose kept rows go to any rule; the regression is that of Chen, Xiao and Yang,
"Autoregressive Models for Matrix-Valued Time Series", J. Econometrics 222, 2021. As in Flower's
baseline `flanders`, s coordinates are drawn once. Open details, and where that baseline departs:

- it fits A and B on models stretched to [0, 1] and applies them to models as they are; here both
  are of the models stretched by the same smallest and largest number;
- its sums begin at t = 0, where X_{t-1} is the last round; here at the first round with one before;
- it starts from random A and B; here from B = I;
- a client that was away, or flagged, has in that round's place the model that the round ended with.

B is [s, s] and never made: with Y = (X_t)_t and Z = (A X_{t-1})_t below each other,
B = Y^T (Z Z^T + beta I)^-1 Z, so that products of rows are all that is needed, [n l, n l].
As many rows are flagged as are assumed, whether or not anybody attacks. Breakdown point: none is
proven.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, final

import numpy as np
import torch
from torch import Tensor

from fedexp.core.checks import at_least, positive, refuse_majority
from fedexp.core.rng import generator
from fedexp.core.round_model import model_of
from fedexp.core.types import State, Updates, Verdict
from fedexp.detection.acting import check_action, countable, verdict

AT_ONCE = torch.finfo(torch.float64).max  # the score of a row that cannot be counted


@final
@dataclass(frozen=True)
class Flanders:
    """Flags the rows that lie furthest from a forecast of the matrix of local models.

    Its state holds `coordinates` numbers of every client of the last `window` rounds.

    Args:
        assumed_malicious: how many rows to flag in every round.
        window: l, past rounds that the forecast learns from; at least 2.
        coordinates: s, of the model, drawn once; a smaller model counts whole.
        alpha: ridge of A.
        beta: ridge of B.
        iterations: alternations of the two regressions.
        action: what becomes of a flagged row: "drop" or "report" (nothing).
        seed: of the coordinates.
    """

    assumed_malicious: int
    window: int
    coordinates: int
    alpha: float
    beta: float
    iterations: int
    action: Literal["drop", "report"]
    seed: int

    follows_clients: ClassVar[bool] = True

    def __post_init__(self) -> None:
        at_least(0, assumed_malicious=self.assumed_malicious, seed=self.seed)
        at_least(2, window=self.window)
        at_least(1, coordinates=self.coordinates, iterations=self.iterations)
        positive(alpha=self.alpha, beta=self.beta)
        check_action(self.action)

    @property
    def rounds_without_opinion(self) -> int:
        """In how many of the first rounds there is no pair of rounds to learn from."""
        return 2

    def check_cohort(self, n: int) -> None:
        """Raise InputError where half or more of n rows would be flagged."""
        refuse_majority(n, self.assumed_malicious)

    def init(self, d: int) -> State:
        """Nothing seen yet."""
        return {
            "clients": torch.zeros(0, dtype=torch.int64),
            "models": torch.zeros(0, 0, 0),  # [rounds, clients, s] local ones
            "there": torch.zeros(0, 0, dtype=torch.bool),  # [rounds, clients], and not flagged
            "starts": torch.zeros(0, 0),  # [rounds, s] the shared ones
        }

    def __call__(
        self, updates: Updates, state: State, rng: np.random.Generator
    ) -> tuple[Verdict, State]:
        """Scores and trust of the rows, and the next state; no opinion in the first two rounds."""
        model = model_of(updates.model)
        usable = countable(updates.matrix)
        chosen = drawn(len(model.params), self.coordinates, self.seed)
        start = model.params.cpu()[chosen]
        rows = model.deltas(updates.matrix)[:, chosen.to(updates.matrix.device)].cpu()
        local = torch.where(usable[:, None], start + rows, start)
        past = _past(state, updates.client_ids, start)
        said = Verdict.no_opinion(len(updates))
        if len(past) >= self.rounds_without_opinion:
            scores = self._scores(past, local.double())
            scores[~usable] = AT_ONCE
            said = verdict(scores, self._threshold(scores), self.action)
        return said, self._after(state, updates.client_ids, local, ~said.flagged & usable, start)

    def _scores(self, past: Tensor, local: Tensor) -> Tensor:
        """Squared distances `[n]` of `local` `[n, s]` from its forecast by `past` `[l, n, s]`."""
        low, high = past.min(), past.max()
        width = torch.where(high > low, high - low, 1)
        stretched = (past - low) / width
        expected = forecast(stretched, self.alpha, self.beta, self.iterations)
        # A row far off may overflow, and is far off all the same.
        return ((local - low) / width - expected).square().sum(dim=1).clamp_max(AT_ONCE)

    def _threshold(self, scores: Tensor) -> float:
        """The largest score that is not flagged."""
        self.check_cohort(len(scores))
        return float(scores.sort().values[len(scores) - self.assumed_malicious - 1])

    def _after(
        self, state: State, clients: tuple[int, ...], local: Tensor, good: Tensor, start: Tensor
    ) -> State:
        """With this round, without the oldest one if there are more than the window."""
        first = max(0, len(state["starts"]) - self.window + 1)
        kept = state["there"][first:]
        seen = state["clients"][kept.any(dim=0)].tolist() if len(kept) else []
        names = sorted({*seen, *(c for c in clients if c >= 0)})
        places = {name: i for i, name in enumerate(names)}
        before = {name: i for i, name in enumerate(state["clients"].tolist())}
        models = torch.zeros(len(kept) + 1, len(names), len(start))
        there = torch.zeros(len(kept) + 1, len(names), dtype=torch.bool)
        for name in seen:
            models[:-1, places[name]] = state["models"][first:, before[name]]
            there[:-1, places[name]] = kept[:, before[name]]
        for client, row, is_good in zip(clients, local, good.tolist(), strict=True):
            if client >= 0 and is_good:
                models[-1, places[client]] = row
                there[-1, places[client]] = True
        starts = [*state["starts"][first:], start]
        return {
            "clients": torch.tensor(names, dtype=torch.int64),
            "models": models,
            "there": there,
            "starts": torch.stack(starts),
        }


def drawn(d: int, coordinates: int, seed: int) -> Tensor:
    """Which of the d coordinates are looked at, in their order: `[s]`."""
    if d <= coordinates:
        return torch.arange(d)
    chosen = generator(seed, "flanders", d).choice(d, coordinates, replace=False)
    return torch.from_numpy(np.sort(chosen))


def forecast(past: Tensor, alpha: float, beta: float, iterations: int) -> Tensor:
    """What comes after `past` `[l, n, s]` float64, by A X B^T: `[n, s]`; l at least 2."""
    n = past.shape[1]
    rows = past.flatten(end_dim=1)
    products = rows @ rows.T
    earlier, later = products[:-n, :-n], products[n:, n:]
    one, pairs = torch.eye(n, dtype=torch.float64), torch.eye(len(past) - 1, dtype=torch.float64)
    # Of X_{t-1} B^T its products with the X_t, and with itself; B = I at first.
    with_later, with_itself = products[n:, :-n], earlier
    for _ in range(iterations):
        cross, squares = _summed(with_later, n), _summed(with_itself, n)
        a = torch.linalg.solve(squares + alpha * one, cross.T).T
        every = torch.kron(pairs, a)  # Z = every X_{t-1}
        inner = every @ earlier @ every.T + beta * torch.eye(len(every), dtype=torch.float64)
        weights = torch.linalg.solve(inner, every @ products[:-n])  # X B^T = its columns^T Y
        mixing = weights[:, :-n].T
        with_later = later @ mixing.T
        with_itself = mixing @ with_later
    expected: Tensor = a @ (weights[:, -n:].T @ rows[n:])
    return expected


def _summed(blocks: Tensor, n: int) -> Tensor:
    """The sum of the blocks `[n, n]` on the diagonal."""
    each = range(0, len(blocks), n)
    return torch.stack([blocks[i : i + n, i : i + n] for i in each]).sum(dim=0)


def _past(state: State, clients: tuple[int, ...], start: Tensor) -> Tensor:
    """The local models of these clients in the rounds before: `[rounds, n, s]` float64."""
    ends = torch.stack([*state["starts"][1:], start]) if len(state["starts"]) else start[None][:0]
    past = ends[:, None].repeat(1, len(clients), 1)
    places = {name: i for i, name in enumerate(state["clients"].tolist())}
    for row, client in enumerate(clients):
        if client in places:
            there = state["there"][:, places[client]]
            past[there, row] = state["models"][there, places[client]]
    return past.double()
