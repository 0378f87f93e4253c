"""One class an example: softmax, cross-entropy or focal loss, and the usual metrics.

    loss = w_y (1 - p_y)^gamma (-log p_y),    p = softmax(logits),    w = 1 and gamma = 0 by default
    answer = the class of the largest logit

Training goes by that loss; the metric called loss is cross-entropy whatever is trained on, so that
runs can be compared.

Accuracy, balanced accuracy (the mean recall of the classes), macro F1, AUC (one class against the
rest, averaged over classes) and cross-entropy. AUC is NaN where a part lacks a class.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal, final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fedexp.core.capabilities import slope_by_autograd
from fedexp.core.checks import InputError
from fedexp.core.mixes import expected_in
from fedexp.tasks.focal import focal, gamma_of
from fedexp.tasks.scores import area_under_roc, balanced_accuracy, macro_f1
from fedexp.tasks.weights import ClassWeights, balanced, check_number, stated

IGNORED = -100  # torch's own: cross-entropy leaves it out

_MEAN = 1  # of torch's enumeration of reductions
_nll_forward = torch.ops.aten.nll_loss_forward.default
_nll_backward = torch.ops.aten.nll_loss_backward.default


@final
@dataclass(frozen=True, init=False)
class Multiclass:
    """Labels `[n]` int64, from 0 to the number of classes - 1.

    Args:
        loss: "cross_entropy" or "focal".
        gamma: the exponent of the focal loss.
        class_weights: "none", "balanced" (each client's own), or one for each class.
    """

    gamma: float  # 0: cross-entropy
    weights: tuple[float, ...]  # empty: all 1; those of classes beyond are 1
    counted: bool  # whether clients are to count their own

    one_class: ClassVar[bool] = True
    metrics: ClassVar[tuple[str, ...]] = (
        "accuracy",
        "balanced_accuracy",
        "macro_f1",
        "auc",
        "loss",
    )
    ignored: ClassVar[int | None] = IGNORED

    def __init__(
        self,
        loss: Literal["cross_entropy", "focal"] = "cross_entropy",
        gamma: float = 2.0,
        class_weights: ClassWeights = "none",
    ) -> None:
        object.__setattr__(self, "gamma", gamma_of(loss, gamma))
        object.__setattr__(self, "weights", stated(class_weights))
        object.__setattr__(self, "counted", class_weights == "balanced")

    def of_client(self, y: Tensor) -> Multiclass:
        """The task of a client with these labels: with its own weights, where it counts them."""
        if not self.counted:
            return self
        weights = balanced(torch.bincount(y.cpu()))
        return self._with(tuple(weights.tolist()))

    def _with(self, weights: tuple[float, ...]) -> Multiclass:
        name = "focal" if self.gamma else "cross_entropy"
        return Multiclass(name, self.gamma, weights)  # type: ignore[arg-type]

    def check(self, y: Tensor, num_classes: int) -> None:
        """Raise InputError for labels that are not one class an example."""
        if y.dim() != 1 or y.is_floating_point():
            raise InputError(
                "needs one class an example, and these examples have any number of labels; use "
                "task=multilabel",
                "task",
                "multiclass",
            )
        check_number(self.weights, num_classes)

    def losses(self, logits: Tensor, y: Tensor) -> Tensor:
        """Every example's loss `[n]`; `y` may also be probabilities `[n, classes]`."""
        weight = self._weight(logits)
        if self.gamma == 0:
            return F.cross_entropy(logits, y, weight=weight, reduction="none")
        each = focal(-logits.log_softmax(dim=1), self.gamma)  # [n, classes]
        if y.is_floating_point():
            return (y * each if weight is None else y * each * weight).sum(dim=1)
        return F.nll_loss(-each, y, weight=weight, reduction="none")

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """Their mean `[]`, over the examples that are not ignored; weights do not divide it."""
        if self.gamma == 0 and not self.weights:
            return F.cross_entropy(logits, y)
        losses = self.losses(logits, y)
        if y.is_floating_point():
            return losses.mean()
        return losses.sum() / y.ne(IGNORED).sum()

    def slope(self, logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The mean loss and its slope, by default (softmax - truth) / n.

        That is autograd's to the bit: by the kernels that it would run, without its bookkeeping.
        """
        if self.gamma or self.weights or y.is_floating_point():
            return slope_by_autograd(self, logits, y)
        log_p = torch.log_softmax(logits, 1)
        loss, count = _nll_forward(log_p, y, None, _MEAN, IGNORED)
        by_log_p = _nll_backward(
            _one(loss.dtype, loss.device), log_p, y, None, _MEAN, IGNORED, count
        )
        return loss, torch._log_softmax_backward_data(by_log_p, log_p, 1, logits.dtype)

    def _weight(self, logits: Tensor) -> Tensor | None:
        """The weights of the classes `[classes]`; None where all are 1."""
        if not self.weights:
            return None
        missing = logits.shape[-1] - len(self.weights)
        return logits.new_tensor([*self.weights, *[1.0] * missing])

    def predict(self, logits: Tensor) -> Tensor:
        """The class of the largest logit `[n]`; NaN counts as lowest."""
        return logits.nan_to_num(nan=-torch.inf).argmax(dim=1)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Of every class `[n, classes]`: the softmax."""
        return logits.softmax(dim=1)

    def measure(self, logits: Tensor, y: Tensor) -> dict[str, float]:
        """All metrics of one model on one part: logits `[n, classes]`, labels `[n]`.

        Diverged logits (NaN or infinite) are allowed: the loss shows them, AUC is NaN, and the
        predicted class is that of the largest finite logit.

        >>> logits = torch.tensor([[2.0, 0.0], [2.0, 0.0]])
        >>> Multiclass().measure(logits, torch.tensor([0, 1]))["accuracy"]
        0.5
        """
        truth, predicted, classes = y.numpy(), self.predict(logits).numpy(), logits.shape[1]
        return {
            "loss": float(F.cross_entropy(logits.double(), y)),
            "accuracy": float((truth == predicted).mean()),
            "balanced_accuracy": balanced_accuracy(truth, predicted, classes),
            "macro_f1": macro_f1(truth, predicted, classes),
            "auc": _auc(logits, truth),
        }

    def majority_baseline(self, y: Tensor, train_y: Tensor) -> float:
        """Accuracy of always answering the training part's most frequent class."""
        return float((y == train_y.mode().values).double().mean())

    def label_counts(self, y: Tensor, num_classes: int) -> np.ndarray:
        """Examples of every class: `[num_classes]` int64."""
        return np.bincount(y.numpy(), minlength=num_classes)

    def confusion(self, predicted: Tensor, y: Tensor, num_classes: int) -> np.ndarray | None:
        """How many examples of class i (row) were answered with j (column).

        >>> y, predicted = torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1])
        >>> Multiclass().confusion(predicted, y, 2).tolist()
        [[1, 0], [1, 1]]
        """
        cells = (y * num_classes + predicted).numpy()
        return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)

    def own_mix_accuracy(self, predicted: Tensor, y: Tensor, mixes: np.ndarray) -> list[float]:
        """The recalls of the classes that `y` has, weighed by each mix; NaN where it has none."""
        classes = mixes.shape[1]
        present = self.label_counts(y, classes)
        right = self.label_counts(y[predicted == y], classes)
        recalls = np.where(present > 0, right / np.maximum(present, 1), np.nan)
        return [float(value) for value in expected_in(mixes, recalls)]


def _auc(logits: Tensor, truth: np.ndarray) -> float:
    classes = logits.shape[1]
    if not bool(logits.isfinite().all()):
        return float("nan")
    probabilities = np.ascontiguousarray(logits.double().softmax(dim=1).numpy().T)
    judged = [1] if classes == 2 else range(classes)
    return float(np.mean([area_under_roc(truth == c, probabilities[c]) for c in judged]))


@lru_cache(maxsize=16)
def _one(dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.ones((), dtype=dtype, device=device)
