"""Any number of labels an example: a sigmoid and binary cross-entropy for each, on its own.

    loss = mean over labels l of  -y_l log s(z_l) - (1 - y_l) log(1 - s(z_l)),    s the sigmoid
    answer l = [z_l > 0], which is s(z_l) > 1/2

Accuracy (the share of single answers that are right), exact match (of examples with all answers
right), balanced accuracy (the mean recall of present and absent) and macro F1, the latter two
averaged over labels, and AUC, averaged over labels and NaN where a label is constant: all as
scikit-learn defines them for one label.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fedexp.core.checks import InputError


@final
@dataclass(frozen=True)
class Multilabel:
    """Labels `[n, labels]` uint8, 1 for every label that an example has and 0 for the others."""

    one_class: ClassVar[bool] = False
    metrics: ClassVar[tuple[str, ...]] = (
        "accuracy",
        "exact_match",
        "balanced_accuracy",
        "macro_f1",
        "auc",
        "loss",
    )
    ignored: ClassVar[int | None] = None

    def check(self, y: Tensor, num_classes: int) -> None:
        """Raise InputError for labels that are not 0 or 1 for each of several."""
        if y.dim() != 2:
            raise InputError(
                "needs labels [n, labels] of 0 and 1, and these examples have one class each; use "
                "task=multiclass",
                "task",
                "multilabel",
            )

    def losses(self, logits: Tensor, y: Tensor) -> Tensor:
        """Binary cross-entropy, mean over labels: `[n]`."""
        return F.binary_cross_entropy_with_logits(logits, y.to(logits), reduction="none").mean(1)

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """Its mean over the examples `[]`."""
        return F.binary_cross_entropy_with_logits(logits, y.to(logits))

    def predict(self, logits: Tensor) -> Tensor:
        """Which labels each example has `[n, labels]` uint8; NaN counts as absent."""
        return (logits > 0).to(torch.uint8)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Of every label `[n, labels]`: the sigmoid."""
        return logits.sigmoid()

    def measure(self, logits: Tensor, y: Tensor) -> dict[str, float]:
        """All metrics of one model on one part: logits and labels `[n, labels]`.

        Diverged logits (NaN or infinite) are allowed: the loss shows them, and AUC is NaN.

        >>> logits, y = torch.tensor([[2.0, -1.0], [1.0, 1.0]]), torch.tensor([[1, 0], [0, 1]])
        >>> measured = Multilabel().measure(logits, y)
        >>> measured["accuracy"], measured["exact_match"]
        (0.75, 0.5)
        """
        from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

        truth, predicted = y.numpy(), self.predict(logits).numpy()
        labels = range(truth.shape[1])
        with warnings.catch_warnings():
            # A label that a small part lacks is no reason to warn.
            warnings.filterwarnings("ignore", message="y_pred contains classes not in y_true")
            warnings.filterwarnings("ignore", message="A single label was found")
            balanced = [balanced_accuracy_score(truth[:, c], predicted[:, c]) for c in labels]
        return {
            "loss": float(self.loss(logits.double(), y)),
            "accuracy": float((truth == predicted).mean()),
            "exact_match": float(accuracy_score(truth, predicted)),
            "balanced_accuracy": float(np.mean(balanced)),
            # Its own average over labels, as `average="macro"` takes one column for two classes.
            "macro_f1": float(
                np.mean([f1_score(truth[:, c], predicted[:, c], zero_division=0.0) for c in labels])
            ),
            "auc": _auc(logits, truth),
        }

    def majority_baseline(self, y: Tensor, train_y: Tensor) -> float:
        """Accuracy of always giving, for every label, the answer more frequent in training."""
        usual = train_y.double().mean(dim=0) > 0.5
        return float((y.bool() == usual).double().mean())

    def label_counts(self, y: Tensor, num_classes: int) -> np.ndarray:
        """Examples that have each label: `[num_classes]` int64."""
        counts: np.ndarray = y.sum(dim=0, dtype=torch.int64).numpy()
        return counts

    def confusion(self, predicted: Tensor, y: Tensor, num_classes: int) -> np.ndarray | None:
        """None: labels are not confused with each other."""
        return None

    def own_mix_accuracy(self, predicted: Tensor, y: Tensor, mixes: np.ndarray) -> Sequence[float]:
        """Empty: examples do not come in classes."""
        return ()


def _auc(logits: Tensor, truth: np.ndarray) -> float:
    from sklearn.metrics import roc_auc_score

    constant = bool((truth.min(axis=0) == truth.max(axis=0)).any())
    if constant or not bool(logits.isfinite().all()):
        return float("nan")
    # By label: scikit-learn would take a single column for one class against another.
    by_label = [roc_auc_score(truth[:, c], logits[:, c].double()) for c in range(truth.shape[1])]
    return float(np.mean(by_label))
