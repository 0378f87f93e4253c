"""Any number of labels an example: a sigmoid and a binary loss for each, on its own.

    loss = mean over labels l of  w_l (1 - p_l)^gamma (-log p_l)
    p_l = s(z_l) where the label is present, 1 - s(z_l) where it is absent,    s the sigmoid
    answer l = [z_l > 0], which is s(z_l) > 1/2

By default w = 1 and gamma = 0: binary cross-entropy, which the metric called loss always is. A list
of weights is of the labels where they are present; where they are absent it is 1. Balanced weights
are those of present and absent, label by label.

Accuracy (the share of single answers that are right), exact match (of examples with all answers
right), balanced accuracy (the mean recall of present and absent) and macro F1, the latter two
averaged over labels, and AUC, averaged over labels and NaN where a label is constant: all as
scikit-learn defines them for one label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fedexp.core.checks import InputError
from fedexp.tasks.focal import focal, gamma_of
from fedexp.tasks.scores import area_under_roc, balanced_accuracy, f1
from fedexp.tasks.weights import ClassWeights, balanced, check_number, stated


@final
@dataclass(frozen=True, init=False)
class Multilabel:
    """Labels `[n, labels]` uint8, 1 for every label that an example has and 0 for the others.

    Args:
        loss: "cross_entropy" (binary) or "focal".
        gamma: the exponent of the focal loss.
        class_weights: "none", "balanced" (each client's own), or one for each label.
    """

    gamma: float  # 0: cross-entropy
    weights: tuple[float, ...]  # of labels that are present; empty: all 1
    absent: tuple[float, ...]  # of labels that are absent; empty: all 1
    counted: bool  # whether clients are to count their own

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

    def __init__(
        self,
        loss: Literal["cross_entropy", "focal"] = "cross_entropy",
        gamma: float = 2.0,
        class_weights: ClassWeights = "none",
    ) -> None:
        object.__setattr__(self, "gamma", gamma_of(loss, gamma))
        object.__setattr__(self, "weights", stated(class_weights))
        object.__setattr__(self, "absent", ())
        object.__setattr__(self, "counted", class_weights == "balanced")

    def of_client(self, y: Tensor) -> Multilabel:
        """The task of a client with these labels: with its own weights, where it counts them."""
        if not self.counted:
            return self
        present = y.cpu().sum(dim=0, dtype=torch.int64)
        absent, weights = balanced(torch.stack([len(y) - present, present])).tolist()
        name = "focal" if self.gamma else "cross_entropy"
        task = Multilabel(name, self.gamma, weights)  # type: ignore[arg-type]
        object.__setattr__(task, "absent", tuple(absent))
        return task

    def check(self, y: Tensor, num_classes: int) -> None:
        """Raise InputError for labels that are not 0 or 1 for each of several."""
        if y.dim() != 2:
            raise InputError(
                "needs labels [n, labels] of 0 and 1, and these examples have one class each; use "
                "task=multiclass",
                "task",
                "multilabel",
            )
        check_number(self.weights, num_classes)

    def losses(self, logits: Tensor, y: Tensor) -> Tensor:
        """Every example's loss, the mean over its labels: `[n]`."""
        return self._each(logits, y).mean(1)

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """Its mean over the examples `[]`."""
        if self.gamma == 0 and not self.weights:
            return F.binary_cross_entropy_with_logits(logits, y.to(logits))
        return self._each(logits, y).mean()

    def _each(self, logits: Tensor, y: Tensor) -> Tensor:
        """The loss of every single answer `[n, labels]`."""
        truth = y.to(logits)
        each = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
        each = focal(each, self.gamma)
        if not self.weights:
            return each
        present = logits.new_tensor(self.weights)
        absent = logits.new_tensor(self.absent) if self.absent else torch.ones_like(present)
        return each * (truth * present + (1 - truth) * absent)

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
        truth, predicted = y.numpy(), self.predict(logits).numpy()
        columns = list(zip(truth.T, predicted.T, strict=True))
        return {
            "loss": float(F.binary_cross_entropy_with_logits(logits.double(), y.double())),
            "accuracy": float((truth == predicted).mean()),
            "exact_match": float((truth == predicted).all(axis=1).mean()),
            "balanced_accuracy": float(
                np.mean([balanced_accuracy(*column, 2) for column in columns])
            ),
            "macro_f1": float(np.mean([f1(*column) for column in columns])),
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
    if not bool(logits.isfinite().all()):
        return float("nan")
    columns = zip(truth.T == 1, np.ascontiguousarray(logits.numpy().T), strict=True)
    return float(np.mean([area_under_roc(*column) for column in columns]))
