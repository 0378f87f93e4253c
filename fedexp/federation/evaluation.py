"""How well models do: scikit-learn's metrics on logits.

Accuracy, balanced accuracy (the mean recall of the classes), macro F1, AUC (one class against the
rest, averaged over classes) and cross-entropy. AUC is NaN where a part lacks a class.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fedexp.core.protocols import Backend
from fedexp.core.types import Metric, Split


def measure(logits: Tensor, y: Tensor) -> dict[str, float]:
    """All metrics of one model on one part: logits `[n, classes]`, labels `[n]`.

    Diverged logits (NaN or infinite) are allowed: the loss shows them, AUC is NaN, and the
    predicted class is that of the largest finite logit.

    >>> measure(torch.tensor([[2.0, 0.0], [2.0, 0.0]]), torch.tensor([0, 1]))["accuracy"]
    0.5
    """
    from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

    truth, predicted = y.numpy(), predictions(logits).numpy()
    with warnings.catch_warnings():
        # A class that a small part lacks is no reason to warn; the definitions below hold.
        warnings.filterwarnings("ignore", message="y_pred contains classes not in y_true")
        return {
            "loss": float(F.cross_entropy(logits.double(), y)),
            "accuracy": float(accuracy_score(truth, predicted)),
            "balanced_accuracy": float(balanced_accuracy_score(truth, predicted)),
            "macro_f1": float(f1_score(truth, predicted, average="macro", zero_division=0.0)),
            "auc": _auc(logits, truth),
        }


def predictions(logits: Tensor) -> Tensor:
    """The class of the largest logit `[n]`; NaN counts as lowest."""
    return logits.nan_to_num(nan=-torch.inf).argmax(dim=1)


def majority_baseline(y: Tensor, train_y: Tensor) -> float:
    """Accuracy of always answering the training part's most frequent class."""
    return float((y == train_y.mode().values).double().mean())


def _auc(logits: Tensor, truth: np.ndarray) -> float:
    from sklearn.metrics import roc_auc_score

    classes = logits.shape[1]
    if len(np.unique(truth)) < classes or not bool(logits.isfinite().all()):
        return float("nan")
    probabilities = logits.double().softmax(dim=1).numpy()
    if classes == 2:
        return float(roc_auc_score(truth, probabilities[:, 1]))
    return float(roc_auc_score(truth, probabilities, multi_class="ovr", average="macro"))


@final
@dataclass(frozen=True)
class ModelEvaluator:
    """Turns the models of a round into rows of `metrics.csv`.

    Args:
        splits: the parts to measure on, by name; "test" among them, and "attack" if an adversary
            wants some images answered its way: only the share that is, is of interest there.
        class_mixes: `[n_clients, classes]`, each client's share of each class. A client's
            `own_mix_accuracy` is the test accuracy it would see if its patients came in this mix:
            sum over classes of its share of the class times the recall of the class.
    """

    splits: Mapping[str, Split]
    class_mixes: np.ndarray

    def __call__(
        self, backend: Backend, models: Sequence[Tensor], round: int
    ) -> tuple[list[Metric], Tensor | None]:
        """Rows for this round, and the shared model's predictions on test if there is one."""
        rows: list[Metric] = []
        answers: Tensor | None = None
        for scope, split in self.splits.items():
            outputs = backend.evaluate(models, scope)
            if scope == "attack":
                success = float((predictions(outputs[0]) == split.y).double().mean())
                rows.append(Metric(round, scope, "all", "success", success))
                continue
            measured = [measure(logits, split.y) for logits in outputs]
            if scope == "test":
                own_mix = self._own_mix_accuracy([predictions(o) for o in outputs], split.y)
                if len(models) == 1:
                    answers = predictions(outputs[0])
                    rows += [
                        Metric(round, scope, str(client), "own_mix_accuracy", value)
                        for client, value in enumerate(own_mix)
                    ]
                else:
                    for values, value in zip(measured, own_mix, strict=True):
                        values["own_mix_accuracy"] = value
            if len(models) == 1:
                rows += [Metric(round, scope, "all", m, v) for m, v in measured[0].items()]
            else:
                rows += _over_clients(round, scope, measured)
        return rows, answers

    def _own_mix_accuracy(self, predicted: Sequence[Tensor], y: Tensor) -> list[float]:
        """One value a client; with one model for all, each client weighs that model's recalls."""
        classes = self.class_mixes.shape[1]
        present = np.bincount(y.numpy(), minlength=classes)
        recalls = np.stack(
            [
                np.bincount(y[p == y].numpy(), minlength=classes) / np.maximum(present, 1)
                for p in predicted
            ]
        )
        return [float(v) for v in (self.class_mixes * recalls).sum(axis=1)]


def _over_clients(round: int, scope: str, measured: list[dict[str, float]]) -> list[Metric]:
    rows = [
        Metric(round, scope, str(client), metric, value)
        for client, values in enumerate(measured)
        for metric, value in values.items()
        if scope == "test" and metric in ("accuracy", "own_mix_accuracy")
    ]
    for metric in measured[0]:
        values = np.array([m[metric] for m in measured])
        over = {
            "mean": values.mean(),
            "std": values.std(ddof=1) if len(values) > 1 else 0.0,
            "min": values.min(),
            "max": values.max(),
        }
        rows += [Metric(round, scope, name, metric, float(value)) for name, value in over.items()]
    return rows
