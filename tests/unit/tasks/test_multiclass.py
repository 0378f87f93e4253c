"""Metrics of one class an example, against numbers worked out by hand."""

import math

import numpy as np
import pytest
import torch

from fedexp.core.checks import InputError
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


def test_a_confusion_matrix_by_hand():
    values = TASK.measure(*answers(CONFUSION))
    assert values["accuracy"] == pytest.approx(6 / 10)
    assert values["balanced_accuracy"] == pytest.approx((3 / 4 + 1 / 2 + 2 / 4) / 3)
    # F1 = 2 TP / (2 TP + FP + FN): 6 / (6 + 2 + 1), 2 / (2 + 1 + 1), 4 / (4 + 1 + 2)
    assert values["macro_f1"] == pytest.approx((6 / 9 + 2 / 4 + 4 / 7) / 3)
    # -log softmax: log(e + 2) - 1 where it is right, log(e + 2) where not.
    assert values["loss"] == pytest.approx(math.log(math.e + 2) - 0.6)
    # One class against the rest, over (positive, negative) pairs, a tie for half.
    aucs = [
        (3 * 4 + (3 * 2 + 1 * 4) / 2) / 24,  # of 4 positives 3 say 0, of 6 negatives 2 do
        (1 * 7 + (1 * 1 + 1 * 7) / 2) / 16,  # of 2 positives 1 says 1, of 8 negatives 1 does
        (2 * 5 + (2 * 1 + 2 * 5) / 2) / 24,  # of 4 positives 2 say 2, of 6 negatives 1 does
    ]
    assert values["auc"] == pytest.approx(sum(aucs) / 3)


def test_binary_auc_is_the_share_of_pairs_in_order():
    # Scores of class 1 against class 0: positives 2, -1, 0.5; negatives 1, -2, 0.5.
    margin = torch.tensor([2.0, -1.0, 0.5, 1.0, -2.0, 0.5])
    logits = torch.stack([torch.zeros(6), margin], dim=1)
    y = torch.tensor([1, 1, 1, 0, 0, 0])
    values = TASK.measure(logits, y)
    # In order: 2 beats three, -1 beats one, 0.5 beats one and ties with one: 5.5 of 9.
    assert values["auc"] == pytest.approx(5.5 / 9)
    assert values["accuracy"] == pytest.approx(3 / 6)  # says 1 0 1 | 1 0 1
    reversed_classes = TASK.measure(logits.flip(1), 1 - y)
    assert reversed_classes["auc"] == pytest.approx(values["auc"])


def test_auc_is_not_confused_by_scores_that_saturate():
    # In float32 both probabilities would be exactly 1, and their order lost.
    logits = torch.tensor([[0.0, 30.0], [0.0, 25.0]])
    assert TASK.measure(logits, torch.tensor([1, 0]))["auc"] == 1.0
    assert TASK.measure(logits, torch.tensor([0, 1]))["auc"] == 0.0


def test_a_class_that_the_part_lacks_has_no_auc():
    logits, y = answers([[2, 1, 0], [0, 3, 1], [0, 0, 0]])
    values = TASK.measure(logits, y)
    assert math.isnan(values["auc"])
    assert values["accuracy"] == pytest.approx(5 / 7)
    assert values["balanced_accuracy"] == pytest.approx((2 / 3 + 3 / 4) / 2)  # of classes there


def test_a_part_of_one_class_is_measured_all_the_same():
    values = TASK.measure(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([1, 1]))
    assert values["accuracy"] == values["balanced_accuracy"] == 0.5
    assert math.isnan(values["auc"])


def test_more_classes_than_half_of_the_rows_give_no_warning():
    logits = torch.eye(25)
    values = TASK.measure(logits, torch.arange(25))
    assert values["accuracy"] == values["macro_f1"] == values["auc"] == 1.0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_diverged_model_is_measured(bad):
    logits, y = answers(CONFUSION)
    logits[:] = bad
    values = TASK.measure(logits, y)
    assert math.isnan(values["auc"])
    assert not math.isfinite(values["loss"])
    assert values["accuracy"] == pytest.approx(4 / 10)  # all ties: class 0


def test_a_logit_that_is_no_number_counts_as_lowest():
    nan, inf = math.nan, math.inf
    logits = torch.tensor([[nan, -5.0, -9.0], [1.0, nan, 2.0], [0.0, inf, 1.0], [-inf, nan, -3.0]])
    assert TASK.predict(logits).tolist() == [1, 2, 1, 2]


def test_measuring_leaves_the_logits_as_they_were():
    logits, y = answers(CONFUSION)
    before = logits.clone()
    TASK.measure(logits, y)
    assert torch.equal(logits, before)


def test_the_baseline_answers_trainings_most_frequent_class():
    y, train_y = torch.tensor([0, 0, 0, 2, 1]), torch.tensor([2, 2, 1, 0])
    assert TASK.majority_baseline(y, train_y) == pytest.approx(1 / 5)


def test_the_mean_of_the_losses_is_the_loss():
    logits, y = answers(CONFUSION)
    assert TASK.losses(logits, y).shape == (10,)
    assert float(TASK.loss(logits, y)) == pytest.approx(float(TASK.losses(logits, y).mean()))


def test_an_ignored_label_has_no_loss_and_no_gradient():
    logits = torch.randn(2, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    losses = TASK.losses(logits, torch.tensor([1, TASK.ignored]))
    losses.sum().backward()
    assert losses[1] == 0
    assert (logits.grad[1] == 0).all()
    assert losses[0] > 0


def test_counts_and_the_table_of_confusions():
    logits, y = answers(CONFUSION)
    assert TASK.label_counts(y, 4).tolist() == [4, 2, 4, 0]
    assert TASK.confusion(TASK.predict(logits), y, 3).tolist() == CONFUSION


def test_what_another_mix_of_classes_would_see():
    logits, y = answers(CONFUSION)
    mixes = np.array([[1.0, 0.0, 0.0], [0.25, 0.5, 0.25]])
    expected = [3 / 4, (3 / 4) / 4 + (1 / 2) / 2 + (2 / 4) / 4]
    assert TASK.own_mix_accuracy(TASK.predict(logits), y, mixes) == pytest.approx(expected)


def test_refuses_several_labels():
    with pytest.raises(InputError, match="use task=multilabel"):
        TASK.check(torch.zeros(3, 2, dtype=torch.uint8), 2)
    TASK.check(torch.zeros(3, dtype=torch.int64), 2)
