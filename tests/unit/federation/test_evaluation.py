"""Metrics against numbers worked out by hand."""

import numpy as np
import pytest
import torch

from fedexp.core.examples import Split
from fedexp.federation.evaluation import ModelEvaluator
from fedexp.tasks.multiclass import Multiclass

TASK = Multiclass()

# Rows are the truth, columns the answer; 3 classes with 4, 2 and 4 examples.
CONFUSION = [[3, 1, 0], [0, 1, 1], [2, 0, 2]]


def answers(confusion, margin=1.0):
    """Logits and labels that make this confusion matrix: `margin` for the answer, 0 elsewhere."""
    classes = len(confusion)
    pairs = [
        (true, said)
        for true in range(classes)
        for said in range(classes)
        for _ in range(confusion[true][said])
    ]
    logits = torch.zeros(len(pairs), classes)
    for row, (_, said) in enumerate(pairs):
        logits[row, said] = margin
    return logits, torch.tensor([true for true, _ in pairs])


class Backend:
    """Answers with logits that were given for each model."""

    def __init__(self, **logits_by_split):
        self.logits = logits_by_split

    def evaluate(self, models, split):
        return [self.logits[split][int(model)] for model in models]


TEST_LOGITS, TEST_Y = answers(CONFUSION)  # recalls 3/4, 1/2, 1/2
OTHER_LOGITS, _ = answers([[4, 0, 0], [0, 0, 2], [0, 4, 0]])  # recalls 1, 0, 0
MIXES = np.array([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5], [0.2, 0.4, 0.4]])


def value_of(rows, scope, client, metric):
    (row,) = [r for r in rows if (r.scope, r.client, r.metric) == (scope, client, metric)]
    return row.value


def evaluate(models, mixes=MIXES):
    data = Split(torch.zeros(10, 1, 1, 1), TEST_Y)
    validation = Split(torch.zeros(4, 1, 1, 1), torch.tensor([0, 1, 2, 2]))
    backend = Backend(
        validation=[torch.eye(3)[[0, 1, 2, 2]], torch.eye(3)[[0, 0, 0, 0]]],
        test=[TEST_LOGITS, OTHER_LOGITS],
    )
    evaluator = ModelEvaluator(Multiclass(), {"validation": validation, "test": data}, mixes)
    return evaluator(backend, [torch.tensor(m) for m in models], 7)


def test_of_the_shared_model_the_recalls_are_there_of_which_estimates_are_made():
    rows, predicted = evaluate([0])
    assert value_of(rows, "validation", "all", "accuracy") == 1.0
    assert value_of(rows, "test", "all", "accuracy") == pytest.approx(0.6)
    recalls = np.array([value_of(rows, "recall", "all", str(c)) for c in range(3)])
    assert MIXES @ recalls == pytest.approx([3 / 4, 1 / 2, 0.2 * 3 / 4 + 0.8 / 2])
    assert predicted.tolist() == TASK.predict(TEST_LOGITS).tolist()
    assert {row.round for row in rows} == {7}


def test_clients_own_models_are_summed_up():
    rows, predicted = evaluate([0, 1], MIXES[:2])
    assert predicted is None
    assert value_of(rows, "test", "0", "accuracy") == pytest.approx(0.6)
    assert value_of(rows, "test", "1", "accuracy") == pytest.approx(0.4)
    assert value_of(rows, "test", "mean", "accuracy") == pytest.approx(0.5)
    assert value_of(rows, "test", "std", "accuracy") == pytest.approx(0.2 / 2**0.5)
    assert value_of(rows, "test", "min", "accuracy") == pytest.approx(0.4)
    assert value_of(rows, "test", "max", "accuracy") == pytest.approx(0.6)
    assert value_of(rows, "validation", "mean", "accuracy") == pytest.approx((1 + 1 / 4) / 2)
    # Client 0 sees class 0 only, client 1 classes 1 and 2: each asks its own model.
    assert value_of(rows, "test", "0", "own_mix_accuracy") == pytest.approx(3 / 4)
    assert value_of(rows, "test", "1", "own_mix_accuracy") == pytest.approx(0)


def test_of_a_class_which_test_lacks_nothing_is_known():
    data = Split(torch.zeros(2, 1, 1, 1), torch.tensor([0, 1]))
    mixes = np.array([[0.0, 0.0, 1.0], [0.5, 0.0, 0.5]])
    evaluator = ModelEvaluator(Multiclass(), {"test": data}, mixes)
    right = torch.eye(3)[:2]
    rows, _ = evaluator(Backend(test=[right]), [torch.tensor(0)], 1)
    recalls = [value_of(rows, "recall", "all", str(c)) for c in range(3)]
    assert recalls == pytest.approx([1, 1, np.nan], nan_ok=True)
    rows, _ = evaluator(Backend(test=[right, right]), [torch.tensor(0), torch.tensor(1)], 1)
    # Client 0 holds that class alone and has no figure; of client 1 the other half is known.
    own = {row.client: row.value for row in rows if row.metric == "own_mix_accuracy"}
    assert own == {"1": 1, "mean": 1, "std": 0, "min": 1, "max": 1}


class Measuring:
    """A task that measures with NumPy, as scikit-learn's metrics do."""

    metrics = ("own",)
    predict = TASK.predict
    own_mix_accuracy = TASK.own_mix_accuracy

    def measure(self, logits, y):
        return {"own": np.mean([0.25, 0.5])}


def test_numbers_of_numpy_are_recorded_as_pythons():
    data = Split(torch.zeros(len(TEST_Y), 1), TEST_Y)
    evaluator = ModelEvaluator(Measuring(), {"test": data}, MIXES)
    rows, _ = evaluator(Backend(test=[TEST_LOGITS]), [torch.tensor(0)], 1)
    (own,) = (row.value for row in rows if row.metric == "own")
    assert type(own) is float
