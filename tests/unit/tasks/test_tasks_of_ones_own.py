"""A task's wrong answers are refused by the task's name; any library's numbers will do."""

import numpy as np
import pytest
import torch

from fedexp.core.checks import InputError
from fedexp.core.examples import Split
from fedexp.core.partition import Partition
from fedexp.federation.evaluation import ModelEvaluator
from fedexp.federation.form import no_answers, no_figures


def test_what_are_no_answers():
    labels = torch.zeros(5, dtype=torch.int64)
    assert no_answers(labels, labels) == ""
    assert "as labels are [5], and gave [5, 3]" in no_answers(torch.zeros(5, 3), labels)
    assert "gave a list" in no_answers([0] * 5, labels)


class OfNumPy:
    """A task whose figures are NumPy's and torch's numbers, as those of many libraries are."""

    metrics = ("accuracy",)

    def measure(self, logits, y):
        return {"accuracy": np.float32(0.5)}

    def predict(self, logits):
        return logits.argmax(1)

    def own_mix_accuracy(self, predicted, y, mixes):
        return torch.ones(len(mixes))

    def label_counts(self, y, num_classes):
        return torch.bincount(y)


@pytest.mark.parametrize("models", [1, 2])
def test_figures_of_any_library_are_written_as_numbers(models):
    part = Split(torch.zeros(4, 3), torch.tensor([0, 1, 2, 2]))
    evaluator = ModelEvaluator(OfNumPy(), {"test": part}, np.full((2, 3), 1 / 3))

    class Backend:
        def evaluate(self, models, split):
            return [torch.eye(3)[part.y]] * len(models)

    rows, _ = evaluator(Backend(), [torch.zeros(1)] * models, 1)
    assert {type(row.value) for row in rows} == {float}


def test_labels_of_fewer_classes_than_there_are_are_refused():
    part = Split(torch.zeros(4, 3), torch.tensor([0, 1, 2, 2]))
    partition = Partition(part, (np.array([0, 1]), np.array([2, 3])))
    with pytest.raises(InputError, match=r"OfNumPy: must count the labels of all 3 classes, and g"):
        partition.label_counts(3, OfNumPy())


def test_what_are_no_figures():
    assert no_figures({"loss": 0.5, "auc": float("nan"), "own": np.float32(1)}, ("loss",)) == ""
    assert "and 3 is none" in no_figures({3: 0.5}, ())
    assert "a name on one line, and 'a\\nb' is none" in no_figures({"a\nb": 0.5}, ())
    assert "must measure a dict of numbers" in no_figures([0.5], ("loss",))
    assert "says that it measures 'auc'" in no_figures({"loss": 0.5}, ("loss", "auc"))
    assert "'loss' is [] torch.float32" in no_figures({"loss": torch.tensor(0.5)}, ("loss",))
