"""A detector in a run: learns from the first rounds, then scores every round's updates.

    flagged_k = score_k > threshold;   what happens to a flagged row is `action`'s to say

The first `warm_up_rounds` rounds are taken for honest: nobody is flagged, their features are
collected, and after the last of them scorer and threshold are fitted once and for all. Or both come
from a file that was fitted on another run. See `fedexp.detection.features` for what is compared,
and `fedexp.detection.fitted` for the threshold. An adversary who is there during the warm-up is
learned as honest, and one who was flagged from the start has no past of its own to be held to:
what is learned in the run is only as good as its first rounds.

`threshold_rule: round_mean` is the rule of Li et al., "Learning to Detect Malicious Clients for
Robust Federated Learning", arXiv:2002.00211, 2020, section 3: flag everything above the round's
mean score. Without an attack it flags nearly half of the honest clients.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, final

import numpy as np
import torch
from torch import Tensor

from fedexp.core.checks import InputError, at_least, in_range, one_of
from fedexp.core.documents import read_regular
from fedexp.core.types import State, Updates, Verdict
from fedexp.detection.acting import countable
from fedexp.detection.features import (
    RELATIONS,
    RESIDUAL,
    Short,
    empty_memory,
    remember,
    round_features,
    shorten,
)
from fedexp.detection.fitted import (
    LEAST_ROWS,
    Fitted,
    calibrate,
    scores_of,
    with_uncountable,
)
from fedexp.detection.scorers import Scorer

_MEMORY = ("direction", "clients", "habits")


@final
@dataclass(frozen=True)
class FittedDetector:
    """Flags rows that are unlike the honest ones it has seen.

    Its state grows with the clients seen (a sketch each) and, in the warm-up, with the rows (their
    features). A row's sender is known to the detector, so it does not go with secure aggregation.

    Args:
        scorer: what learns and scores (`fedexp.detection.scorers`); with a `path`, the file's is
            used instead.
        warm_up_rounds: rounds taken for honest, in which the detector learns; at least 2.
        path: a fitted detector (`Fitted.to_bytes`) to use instead of a warm-up; None for none.
        quantile: of the held-out honest scores at which the threshold lies.
        threshold_rule: "quantile", or "round_mean": the mean score of the round.
        action: what becomes of a flagged row: "drop", "down_weight" (its weight times threshold /
            score) or "report" (nothing).
        seed: of the sketch.
    """

    scorer: Scorer
    warm_up_rounds: int
    path: str | None
    quantile: float
    threshold_rule: Literal["quantile", "round_mean"]
    action: Literal["drop", "down_weight", "report"]
    seed: int
    _file: Fitted | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        at_least(2, warm_up_rounds=self.warm_up_rounds)
        in_range(0, 1, quantile=self.quantile)
        one_of(("quantile", "round_mean"), threshold_rule=self.threshold_rule)
        one_of(("drop", "down_weight", "report"), action=self.action)
        at_least(0, seed=self.seed)
        object.__setattr__(self, "_file", None if self.path is None else _read(self.path))

    @property
    def down_weights(self) -> bool:
        """Whether flagged rows keep some of their weight, which the rule has to heed."""
        return self.action == "down_weight"

    @property
    def rounds_without_opinion(self) -> int:
        """In how many of the first rounds nobody can be flagged."""
        return self.warm_up_rounds if self._file is None else 0

    def starts_alike(self, rounds: int) -> Mapping[str, object] | None:
        """While it collects features, the scorer has said no more than how long a sketch is."""
        if self._file is not None or rounds >= self.warm_up_rounds:
            return None
        return {
            "collects": f"{type(self).__module__}.{type(self).__qualname__}",
            "sketch_size": self.scorer.sketch_size,
            "seed": self.seed,
        }

    def init(self, d: int) -> State:
        """Nothing seen yet; raises InputError if the file's detector is for another model."""
        if self._file is None:
            size = self.scorer.sketch_size
            nothing = torch.zeros(0, RELATIONS + RESIDUAL)
            counts = torch.zeros(0, dtype=torch.int64)
            memory = empty_memory(d if size is None else size)
            return {**memory, "features": nothing, "counts": counts}
        try:
            self._file.check(d)
        except InputError as error:
            raise InputError(error.reason, "path", self.path) from error
        return {
            **self._file.start(),
            "threshold": torch.tensor(self._file.threshold, dtype=torch.float64),
            **{f"fitted.{name}": tensor for name, tensor in self._file.tensors.items()},
        }

    def __call__(
        self, updates: Updates, state: State, rng: np.random.Generator
    ) -> tuple[Verdict, State]:
        """Scores and trust of the rows, and the next state; no opinion during the warm-up.

        A row that cannot be counted is flagged; it has no part in what is learned, nor in what the
        others are compared with.
        """
        usable = countable(updates.matrix)
        if bool(usable.all()):
            return self._judged(updates, state, rng)
        said, after = self._judged(updates.select(usable), state, rng)
        if math.isnan(said.threshold):
            return Verdict.no_opinion(len(updates)), after
        trust = torch.full((len(updates),), 1.0 if self.action == "report" else 0.0).double()
        trust[usable] = said.trust
        return Verdict(with_uncountable(said.scores, usable), said.threshold, trust), after

    def _judged(
        self, updates: Updates, state: State, rng: np.random.Generator
    ) -> tuple[Verdict, State]:
        file = self._file
        scorer, seed = (self.scorer, self.seed) if file is None else (file.scorer, file.seed)
        clients = updates.client_ids if file is None or file.by_client else None
        short = shorten(updates.matrix, scorer.sketch_size, seed)
        memory = {name: state[name] for name in _MEMORY}
        features = round_features(short, clients, memory)
        if "threshold" not in state:
            return self._warm_up(updates, short, features, state, rng)
        fitted = {k.removeprefix("fitted."): v for k, v in state.items() if k.startswith("fitted.")}
        scores = scores_of(scorer, features, fitted)
        of_round = self.threshold_rule == "round_mean" and len(scores)
        threshold = float(scores.mean() if of_round else state["threshold"])
        verdict = Verdict(scores, threshold, self._trust(scores, threshold))
        return verdict, {**state, **remember(memory, short, clients, ~verdict.flagged)}

    def _warm_up(
        self,
        updates: Updates,
        short: Short,
        features: Tensor,
        state: State,
        rng: np.random.Generator,
    ) -> tuple[Verdict, State]:
        """Learn from rows that are taken for honest; after the last round, fit."""
        n = len(updates)
        everybody = torch.ones(n, dtype=torch.bool)
        memory = {name: state[name] for name in _MEMORY}
        after = remember(memory, short, updates.client_ids, everybody)
        seen = torch.cat([state["features"], features])
        counts = torch.cat([state["counts"], torch.tensor([n])])
        verdict = Verdict.no_opinion(n)
        if len(counts) < self.warm_up_rounds or len(seen) < LEAST_ROWS:
            return verdict, {**after, "features": seen, "counts": counts}
        rounds = seen.split(counts.tolist())
        seed = int(rng.integers(2**62))
        fitted, threshold = calibrate(self.scorer, rounds, self.quantile, seed)
        return verdict, {
            **after,
            "threshold": torch.tensor(threshold, dtype=torch.float64),
            **{f"fitted.{name}": tensor for name, tensor in fitted.items()},
        }

    def _trust(self, scores: Tensor, threshold: float) -> Tensor:
        trust = torch.ones_like(scores)
        flagged = scores > threshold
        if self.action == "drop":
            trust[flagged] = 0
        elif self.action == "down_weight":
            trust[flagged] = (threshold / scores[flagged]).clamp(0, 1)
        return trust


LARGEST_FILE = 2**32  # bytes


def _read(path: str) -> Fitted:
    try:
        return Fitted.from_bytes(read_regular(Path(path).expanduser(), LARGEST_FILE))
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", "path", path) from error
    except InputError as error:
        raise InputError(error.reason, "path", path) from error
