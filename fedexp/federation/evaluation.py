"""How well models do: the task's metrics on their logits, as rows of `metrics.csv`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, final

import numpy as np
from torch import Tensor

from fedexp.core.checks import in_range
from fedexp.core.examples import Split
from fedexp.core.metric import Metric
from fedexp.core.protocols import Backend, Task
from fedexp.federation.form import no_answers, no_figures, refuse_form
from fedexp.federation.own_patients import OwnPatients


class Pace(Protocol):
    """Says whether a round that could be evaluated is."""

    def allows(self) -> bool:
        """Whether to evaluate now."""

    def note(self, seconds: Mapping[str, float], evaluated: bool) -> None:
        """What a round took, by phase."""


@final
class Unhurried:
    """Every evaluation that is due is made."""

    def allows(self) -> bool:
        """Always."""
        return True

    def note(self, seconds: Mapping[str, float], evaluated: bool) -> None:
        """Nothing to note."""


@final
class ShareOfTime:
    """Evaluations as long as they take no more than a share of the time, the next one included.

    The first round is evaluated, and tells what an evaluation costs. Nothing of this is kept in a
    checkpoint: it is about the machine at hand. So which rounds are evaluated is not of the run's
    seed; what they then show is.

    >>> pace, evaluated = ShareOfTime(0.25), []
    >>> for round in range(1, 10):
    ...     due = pace.allows()
    ...     evaluated += [round] if due else []
    ...     pace.note({"train": 1.0, "evaluate": 1.0 if due else 0.0}, due)
    >>> evaluated
    [1, 7]
    """

    def __init__(self, share: float) -> None:
        in_range(0, 1, share=share)
        self._share = share
        self._total = self._evaluating = self._latest = 0.0  # seconds

    def allows(self) -> bool:
        """Whether one more, as long as the latest, is within the share."""
        evaluating = self._evaluating + self._latest
        return evaluating <= self._share * (self._total + self._latest)

    def note(self, seconds: Mapping[str, float], evaluated: bool) -> None:
        """Count a round."""
        self._total += sum(seconds.values())
        if evaluated:
            self._latest = seconds["evaluate"]
            self._evaluating += self._latest


@final
@dataclass(frozen=True)
class ModelEvaluator:
    """Turns the models of a round into rows of `metrics.csv`.

    Args:
        task: what labels mean.
        splits: the parts to measure on, by name; "test" among them, and "attack" if an adversary
            wants some images answered its way: only the share that is, is of interest there.
        class_mixes: `[n_clients, classes]`, each client's share of each class. A client's
            `own_mix_accuracy` is the test accuracy it would see if its patients came in this mix:
            sum over classes of its share of the class times the recall of the class, over the
            classes that test has. There is none where examples do not come in classes, where test
            has none of its classes, or where its patients are known. Of the shared
            model the recalls are measured, in rows of scope `recall`: whoever reads them makes
            the estimates (`fedexp.run_folder.estimates`): they would be a row for every client of
            a federation, whoever took part.
        own: each client's own patients. Where they are known, `own_accuracy` is a client's
            accuracy on those of them that are in test.
    """

    task: Task
    splits: Mapping[str, Split]
    class_mixes: np.ndarray
    own: OwnPatients | None = None

    def __call__(
        self, backend: Backend, models: Sequence[Tensor], round: int
    ) -> tuple[list[Metric], Tensor | None]:
        """Rows for this round, and the shared model's predictions on test if there is one."""
        rows: list[Metric] = []
        answers: Tensor | None = None
        for scope, split in self.splits.items():
            outputs = backend.evaluate(models, scope)
            if scope == "attack":
                success = float((self._answers(outputs[0], split.y) == split.y).double().mean())
                rows.append(Metric(round, scope, "all", "success", success))
                continue
            measured = [self._measured(logits, split.y) for logits in outputs]
            if scope == "test":
                answers, more = self._each_client(outputs, split.y, round, measured)
                rows += more
                rows += self._on_own_patients(backend, models, outputs, round)
            if len(models) == 1:
                rows += [Metric(round, scope, "all", m, v) for m, v in measured[0].items()]
            else:
                rows += _over_clients(round, scope, measured)
        return rows, answers

    def _measured(self, logits: Tensor, y: Tensor) -> dict[str, float]:
        figures = self.task.measure(logits, y)
        refuse_form(no_figures(figures, self.task.metrics), "task", self.task)
        return {name: float(value) for name, value in figures.items()}  # NumPy's numbers, too

    def _answers(self, logits: Tensor, y: Tensor) -> Tensor:
        answers = self.task.predict(logits)
        refuse_form(no_answers(answers, y), "task", self.task)
        return answers

    def _each_client(
        self, outputs: Sequence[Tensor], y: Tensor, round: int, measured: list[dict[str, float]]
    ) -> tuple[Tensor | None, list[Metric]]:
        """The shared model's predictions, and its recall of every class.

        With a model for each client, none; its own accuracy is added to what was measured.
        """
        predicted = [self._answers(logits, y) for logits in outputs]
        if self.own is not None and self.own.are_known:
            return predicted[0] if len(outputs) == 1 else None, []
        if len(outputs) == 1:
            one_class_each = np.eye(self.class_mixes.shape[1])
            recalls = self.task.own_mix_accuracy(predicted[0], y, one_class_each)
            return predicted[0], [
                Metric(round, "recall", "all", str(c), float(v)) for c, v in enumerate(recalls)
            ]
        for client, of_client in enumerate(measured):
            mix = self.class_mixes[client : client + 1]
            for value in self.task.own_mix_accuracy(predicted[client], y, mix):
                if not math.isnan(value):
                    of_client["own_mix_accuracy"] = float(value)
        return None, []

    def _on_own_patients(
        self, backend: Backend, models: Sequence[Tensor], outputs: Sequence[Tensor], round: int
    ) -> list[Metric]:
        """Every client's accuracy on its own patients in test, where those are known."""
        if self.own is None or not self.own.are_known:
            return []
        scope, own = self.own.scopes["test"], self.own.of["test"]
        if scope != "test":
            outputs = backend.evaluate(models, scope)
        found = []
        for client, rows in enumerate(own.rows):
            if len(rows):
                logits = outputs[client if len(models) > 1 else 0][rows]
                right = self._answers(logits, own.part.y[rows]) == own.part.y[rows]
                value = float(right.double().mean())
                found.append(Metric(round, "test", str(client), "own_accuracy", value))
        return found + _spread(round, "test", "own_accuracy", [row.value for row in found])


def _over_clients(round: int, scope: str, measured: list[dict[str, float]]) -> list[Metric]:
    rows = [
        Metric(round, scope, str(client), metric, value)
        for client, values in enumerate(measured)
        for metric, value in values.items()
        if scope == "test" and metric in ("accuracy", "own_mix_accuracy")
    ]
    for metric in dict.fromkeys(metric for values in measured for metric in values):
        rows += _spread(round, scope, metric, [m[metric] for m in measured if metric in m])
    return rows


def _spread(round: int, scope: str, metric: str, of_clients: Sequence[float]) -> list[Metric]:
    """How evenly a figure is shared by the clients; nothing where no client has it."""
    if not of_clients:
        return []
    values = np.array(of_clients)
    over = {
        "mean": values.mean(),
        "std": values.std(ddof=1) if len(values) > 1 else 0.0,
        "min": values.min(),
        "max": values.max(),
    }
    return [Metric(round, scope, name, metric, float(value)) for name, value in over.items()]
