"""What detectors share that judge one round's rows by the model's output layer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
from torch import Tensor, nn

from fedexp.core.protocols import Task
from fedexp.core.round_model import RoundModel, model_of, refuse_other_endings
from fedexp.core.stateless import Stateless
from fedexp.core.types import State, Updates, Verdict
from fedexp.detection.acting import countable


class OfOutputLayer(Stateless, ABC):
    """Judges the deltas of the rows that can be counted; needs a model that ends in a linear layer.

    A detector says how few rows are too few for an opinion, and judges the others (`judged`).
    """

    fewest: ClassVar[int]

    def check_model(self, model: nn.Module, task: Task, x: Tensor, y: Tensor) -> None:
        """Raise InputError for a model that does not end in a linear layer."""
        refuse_other_endings(model, x)

    def __call__(
        self, updates: Updates, state: State, rng: np.random.Generator
    ) -> tuple[Verdict, State]:
        """Scores and trust of the rows; no opinion where fewer than `fewest` can be counted."""
        model = model_of(updates.model)
        counted = countable(updates.matrix)
        if int(counted.sum()) < self.fewest:
            return Verdict.no_opinion(len(updates)), state
        rows = model.deltas(updates.select(counted).matrix)
        return self.judged(rows, counted, model, rng), state

    @abstractmethod
    def judged(
        self, rows: Tensor, counted: Tensor, model: RoundModel, rng: np.random.Generator
    ) -> Verdict:
        """On all rows of a round.

        Args:
            rows: the deltas `[k, d]` of those that can be counted.
            counted: `[n]` bool, which of the round's rows these are; too long are the others.
            model: of the round.
            rng: of the round.
        """
