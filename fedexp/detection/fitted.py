"""A detector that was fitted on honest updates: a scorer, what it learned, and a threshold.

    threshold = the ceil(q (m + 1))-th smallest of m held-out honest scores, at most the largest

Every row is held out once: the clients are dealt to FOLDS folds by their place in the round, a fold
is scored by a scorer that was fitted on the others, and the scorer that is kept is fitted on all.
Fitted on m rows, a false alarm has a chance of about 1 - q, but hardly below 1 / (m + 1): with
fewer than q / (1 - q) rows, 99 for q = 0.99, the threshold is the largest score that was seen. And
that is for rows like those: what honest rows look like may change with the rounds.

So that a change that means nothing does not count, every row is used COPIES times, with noise of
deviation JITTER (in the deviations of `fedexp.detection.features`) on its relations, both for the
fit and for the threshold.

Sources: Vovk, "Cross-conformal predictors", Annals of Mathematics and Artificial Intelligence 2015,
section 2; Chapelle, Weston, Bottou and Vapnik, "Vicinal Risk Minimization", NIPS 2000, section 2.
In a file: numbers as safetensors and words as JSON, never code.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, final

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from fedexp.core.checks import InputError, at_least, in_range
from fedexp.core.rng import seed_for, torch_generator
from fedexp.core.types import State, Updates
from fedexp.detection.acting import countable
from fedexp.detection.features import (
    RELATIONS,
    RESIDUAL,
    empty_memory,
    remember,
    round_features,
    shorten,
)
from fedexp.detection.scorers import SCORERS, Scorer

FORMAT = "fedexp-detector-1"
METADATA = "detector"
FOLDS = 4
LEAST_ROWS = 2 * FOLDS
COPIES = 4
JITTER = 0.75
MOST = torch.finfo(torch.float64).max


@final
@dataclass(frozen=True)
class Fitted:
    """All that scoring takes.

    Attributes:
        scorer: with its settings.
        tensors: what it learned.
        direction: `[k]` where honest rows pointed on average, all rounds alike; starts the memory.
        by_client: whether the rows it was fitted on named their clients, so that habits count.
        d: numbers in an update.
        seed: of the sketch.
        quantile: of the held-out honest scores at which the threshold lies.
        threshold: scores above it are flagged.
        rows: how many honest rows it was fitted on.
    """

    scorer: Scorer
    tensors: State
    direction: Tensor
    by_client: bool
    d: int
    seed: int
    quantile: float
    threshold: float
    rows: int

    def score(self, matrix: Tensor) -> Tensor:
        """How unlike an honest update each row of one round is: `[n, d]` to `[n]` float64.

        The rows are compared with each other, so they must be of one round, most of them honest;
        a row by itself is never suspicious.

        Raises:
            InputError: rows of another length.
        """
        scores, _ = self.score_round(matrix, None, self.start())
        return scores

    def start(self) -> State:
        """The memory before the first round, for `score_round`."""
        return {**empty_memory(len(self.direction)), "direction": self.direction}

    def score_round(
        self, matrix: Tensor, clients: Sequence[int] | None, memory: State
    ) -> tuple[Tensor, State]:
        """Scores `[n]` float64 of a round's rows `[n, d]`, and the memory for the next round.

        A row that cannot be counted is as suspicious as can be, and has no part in the others'.

        Args:
            matrix: the rows.
            clients: who sent them, if that is known: then each is compared with its own past, too.
            memory: of the rounds before: `start()` for the first one.

        Raises:
            InputError: rows of another length.
        """
        self.check(matrix.shape[1])
        usable = countable(matrix)
        if not bool(usable.all()):
            named = None if clients is None else _those(clients, usable)
            scores, memory = self.score_round(matrix[usable], named, memory)
            return with_uncountable(scores, usable), memory
        senders = clients if self.by_client else None
        short = shorten(matrix, self.scorer.sketch_size, self.seed)
        scores = scores_of(self.scorer, round_features(short, senders, memory), self.tensors)
        return scores, remember(memory, short, senders, ~self.flag(scores))

    def flag(self, scores: Tensor) -> Tensor:
        """Which scores are above the threshold: `[n]` to `[n]` bool."""
        return scores > self.threshold

    def check(self, d: int) -> None:
        """Raise InputError for updates of another length."""
        if d != self.d:
            raise InputError(f"was fitted on updates of {self.d:,} numbers, not {d:,}")

    def to_bytes(self) -> bytes:
        """As a .safetensors file."""
        words = {
            "format": FORMAT,
            "scorer": next(name for name, kind in SCORERS.items() if type(self.scorer) is kind),
            "settings": asdict(self.scorer),  # type: ignore[call-overload]
            **{name: getattr(self, name) for name in _NUMBERS},
        }
        tensors = {f"fitted.{name}": tensor for name, tensor in self.tensors.items()}
        tensors["direction"] = self.direction
        whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
        return safetensors.torch.save(whole, metadata={METADATA: json.dumps(words)})

    @classmethod
    def from_bytes(cls, content: bytes) -> Fitted:
        """The detector that `to_bytes` wrote.

        Raises:
            InputError: it is something else, or damaged.
        """
        try:
            tensors = safetensors.torch.load(content)
            words = json.loads(_metadata(content)[METADATA])
            if words.pop("format") != FORMAT:
                raise InputError(f"is a detector of another version, not {FORMAT}")
            scorer = SCORERS[words.pop("scorer")](**words.pop("settings"))
            fitted = {
                name.removeprefix("fitted."): tensor
                for name, tensor in tensors.items()
                if name != "direction"
            }
            detector = cls(scorer, fitted, tensors["direction"], **words)
            _validate(detector, len(tensors))
        except InputError:
            raise
        except (SafetensorError, LookupError, TypeError, ValueError, AttributeError) as error:
            raise InputError("is no detector file, or a damaged one") from error
        return detector


_NUMBERS = ("by_client", "d", "seed", "quantile", "threshold", "rows")


def fit(scorer: Scorer, rounds: Iterable[Tensor | Updates], quantile: float, seed: int) -> Fitted:
    """Fit a detector on honest updates, round by round in their order.

    A round's rows are made short as they come, and only their features are kept; of a row that
    cannot be counted, none.

    Args:
        scorer: see `SCORERS`.
        rounds: `[n_r, d]` each, or `Updates`, which also tell who sent what. Of several rounds the
            first only shows the direction.
        quantile: of the held-out honest scores at which the threshold lies.
        seed: of the sketch and of the fit.

    Raises:
        InputError: fewer than LEAST_ROWS rows, or rows of different lengths.
    """
    in_range(0, 1, quantile=quantile)
    at_least(0, seed=seed)
    features: list[Tensor] = []
    memory: State = {}
    total, rows, d, by_client = torch.zeros(0), 0, 0, True
    for item in rounds:
        matrix = item.matrix if isinstance(item, Updates) else item
        clients = item.client_ids if isinstance(item, Updates) else None
        usable = countable(matrix)
        if not bool(usable.all()):
            clients = None if clients is None else _those(clients, usable)
            matrix = matrix[usable]
        if not len(matrix):
            continue
        if d and matrix.shape[1] != d:
            raise InputError(f"has rows of {matrix.shape[1]:,} numbers among rows of {d:,}")
        short = shorten(matrix, scorer.sketch_size, seed)
        if not features:
            memory, d = empty_memory(short.units.shape[1]), matrix.shape[1]
            total = torch.zeros(short.units.shape[1], dtype=torch.float64)
        by_client &= clients is not None
        features.append(round_features(short, clients if by_client else None, memory))
        memory = remember(memory, short, clients, torch.ones(len(matrix), dtype=torch.bool))
        total += short.units.mean(dim=0)
        rows += len(matrix)
    tensors, threshold = calibrate(scorer, features, quantile, seed_for(seed, "fit"))
    direction = (total / len(features)).float()
    return Fitted(scorer, tensors, direction, by_client, d, seed, quantile, threshold, rows)


def calibrate(
    scorer: Scorer, rounds: Sequence[Tensor], quantile: float, seed: int
) -> tuple[State, float]:
    """What the scorer learns from the features `[n_r, p]` of honest rounds, and the threshold.

    Of several rounds the first is left out: nothing was known before it.

    Raises:
        InputError: too few rows.
    """
    used = rounds[1:] if sum(map(len, rounds[1:])) >= LEAST_ROWS else rounds
    m = sum(map(len, used))
    if m < LEAST_ROWS:
        raise InputError(f"needs at least {LEAST_ROWS} honest updates to learn from, not {m}")
    x = torch.cat(list(used)).repeat(COPIES, 1)
    noise = torch.randn(len(x), RELATIONS, generator=torch_generator(seed))
    x[:, :RELATIONS] += JITTER * noise
    fold = _folds(used).repeat(COPIES)
    scores = torch.empty(len(x), dtype=torch.float64)
    for held_out in range(FOLDS):
        mask = fold == held_out
        scores[mask] = scores_of(scorer, x[mask], scorer.fit(x[~mask], seed))
    rank = min(len(scores), math.ceil(quantile * (len(scores) + 1)))
    threshold = float(scores.sort().values[max(rank, 1) - 1])
    return scorer.fit(x, seed), threshold


def scores_of(scorer: Scorer, features: Tensor, fitted: State) -> Tensor:
    """Scores `[n]` float64 of `features` `[n, p]`; what overflows is as suspicious as can be."""
    return scorer.score(features, fitted).nan_to_num(MOST, MOST)


def with_uncountable(scores: Tensor, usable: Tensor) -> Tensor:
    """The scores of the rows that are `usable` `[n]` bool, among the others': `[n]` float64."""
    among = torch.full(usable.shape, MOST, dtype=torch.float64)
    among[usable] = scores
    return among


def _those(clients: Sequence[int], usable: Tensor) -> tuple[int, ...]:
    return tuple(client for client, good in zip(clients, usable.tolist(), strict=True) if good)


def _folds(rounds: Sequence[Tensor]) -> Tensor:
    """Which fold each row belongs to: by its place in the round, or in all where that is no use."""
    if max(map(len, rounds)) >= FOLDS:
        return torch.cat([torch.arange(len(x)) for x in rounds]) % FOLDS
    return torch.arange(sum(map(len, rounds))) % FOLDS


def _metadata(content: bytes) -> Mapping[str, str]:
    """The words in a safetensors file: JSON under "__metadata__" in the header at its beginning."""
    length = int.from_bytes(content[:8], "little")
    header: Mapping[str, Any] = json.loads(content[8 : 8 + length])
    words: Mapping[str, str] = header["__metadata__"]
    return words


def _validate(fitted: Fitted, n_tensors: int) -> None:
    """Raise InputError or ValueError where a file's numbers do not go together."""
    at_least(1, d=fitted.d, rows=fitted.rows)
    at_least(0, seed=fitted.seed)
    in_range(0, 1, quantile=fitted.quantile)
    size = fitted.scorer.sketch_size
    expected = dict(fitted.scorer.shapes(RELATIONS + RESIDUAL))
    found = {name: tuple(tensor.shape) for name, tensor in fitted.tensors.items()}
    if found != expected or n_tensors != len(expected) + 1:
        raise InputError("its tensors are not those of its scorer")
    if tuple(fitted.direction.shape) != (fitted.d if size is None else size,):
        raise InputError(f"its direction has {fitted.direction.numel()} numbers, not {size}")
    everything = [fitted.direction, *fitted.tensors.values()]
    if any(t.dtype != torch.float32 or not t.isfinite().all() for t in everything):
        raise InputError("holds numbers that are not finite float32")
    if not isinstance(fitted.threshold, float) or not math.isfinite(fitted.threshold):
        raise InputError("must be a finite number", "threshold", fitted.threshold)
    if not isinstance(fitted.by_client, bool):
        raise InputError("must be true or false", "by_client", fitted.by_client)
