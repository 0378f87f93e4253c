"""The figures of scikit-learn, from counts."""

import warnings

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score, roc_auc_score

from fedexp.tasks.scores import area_under_roc, balanced_accuracy, f1, macro_f1

CASES = [(2, 2, 0), (30, 2, 1), (200, 10, 2), (7, 10, 3), (50, 3, 4)]  # n, classes, seed


def drawn(n, classes, seed):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, n)
    return truth, np.where(rng.random(n) < 0.4, truth, rng.integers(0, classes, n)), rng


@pytest.mark.parametrize(("n", "classes", "seed"), CASES)
def test_recalls_and_f1(n, classes, seed):
    truth, answers, _ = drawn(n, classes, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # classes that do not occur
        recalls = balanced_accuracy_score(truth, answers)
        mean_f1 = f1_score(truth, answers, average="macro", zero_division=0.0)
        of_one = f1_score(truth == 1, answers == 1, zero_division=0.0)
    assert balanced_accuracy(truth, answers, classes) == pytest.approx(recalls, rel=1e-14)
    assert macro_f1(truth, answers, classes) == pytest.approx(mean_f1, rel=1e-14)
    both = ((truth == 1).astype(np.uint8), (answers == 1).astype(np.uint8))
    assert f1(*both) == pytest.approx(of_one, rel=1e-14)


@pytest.mark.parametrize("ties", [False, True])
def test_areas(ties):
    truth, _, rng = drawn(300, 2, 5)
    scores = rng.normal(size=300) + truth
    scores = scores.round() if ties else scores
    expected = roc_auc_score(truth, scores)
    assert area_under_roc(truth == 1, scores) == pytest.approx(expected, rel=1e-14)


def test_an_area_needs_both_kinds():
    assert np.isnan(area_under_roc(np.array([True, True]), np.array([0.1, 0.2])))
    assert np.isnan(area_under_roc(np.array([False]), np.array([0.1])))


def test_by_hand():
    truth, answers = np.array([0, 0, 0, 1, 2]), np.array([0, 0, 1, 1, 1])
    assert balanced_accuracy(truth, answers, 4) == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert macro_f1(truth, answers, 4) == pytest.approx((4 / 5 + 2 / 4 + 0) / 3)
    assert area_under_roc(np.array([1, 0, 1, 0], bool), np.array([3, 2, 2, 1])) == 3.5 / 4
