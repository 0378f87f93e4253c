"""Every metric by hand, and against scikit-learn on random patients with random weights."""

import numpy as np
import pytest
from sklearn import metrics as reference

from fedexp.verdict.metrics import BINS, Answered

TWO = Answered(
    np.array([0, 0, 1, 1, 1]),
    np.array([[0.9, 0.1], [0.3, 0.7], [0.4, 0.6], [0.8, 0.2], [0.1, 0.9]]),
)


def one(answered, weights=None):
    weights = np.ones(len(answered)) if weights is None else weights
    return {name: float(value[0]) for name, value in answered.measure(weights[None]).items()}


def random_patients(classes, seed=0, n=150):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, n)
    logits = rng.normal(size=(n, classes))
    logits[np.arange(n), truth] += 1
    p = np.round(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), 2)  # with ties
    p[:, 0] += 1 - p.sum(axis=1)
    return truth, p, rng.integers(0, 4, n).astype(float)


def test_two_classes_by_hand():
    found = one(TWO)
    assert found["accuracy"] == pytest.approx(3 / 5)
    assert found["sensitivity"] == pytest.approx(2 / 3)
    assert found["specificity"] == pytest.approx(1 / 2)
    assert found["precision"] == pytest.approx(2 / 3)
    assert found["balanced_accuracy"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert found["auc"] == pytest.approx(4 / 6)  # of 6 pairs, 0.6 and 0.2 lose to 0.7
    assert found["brier"] == pytest.approx((0.01 + 0.49 + 0.16 + 0.64 + 0.01) / 5)


def test_the_threshold_decides_but_does_not_answer():
    sharp = Answered(TWO.truth, TWO.probabilities, threshold=0.15)
    assert one(sharp)["sensitivity"] == 1
    assert one(sharp)["accuracy"] == one(TWO)["accuracy"]


def test_two_classes_as_scikit_learn_has_them():
    truth, p, w = random_patients(2)
    found = one(Answered(truth, p, threshold=0.4, grades=True), w)
    decided, answer, ill = p[:, 1] >= 0.4, p.argmax(axis=1), p[:, 1]
    expected = {
        "accuracy": reference.accuracy_score(truth, answer, sample_weight=w),
        "balanced_accuracy": reference.balanced_accuracy_score(truth, answer, sample_weight=w),
        "macro_f1": reference.f1_score(truth, answer, average="macro", sample_weight=w),
        "sensitivity": reference.recall_score(truth, decided, sample_weight=w),
        "specificity": reference.recall_score(1 - truth, ~decided, sample_weight=w),
        "precision": reference.precision_score(truth, decided, sample_weight=w),
        "auc": reference.roc_auc_score(truth, ill, sample_weight=w),
        "pr_auc": reference.average_precision_score(truth, ill, sample_weight=w),
        "brier": reference.brier_score_loss(truth, ill, sample_weight=w),
        "quadratic_kappa": reference.cohen_kappa_score(
            truth, answer, weights="quadratic", sample_weight=w
        ),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize("classes", [3, 5])
def test_more_classes_as_scikit_learn_has_them(classes):
    truth, p, w = random_patients(classes, seed=classes)
    found, answer = one(Answered(truth, p, grades=True), w), p.argmax(axis=1)
    columns = [(truth == c, p[:, c]) for c in range(classes)]
    mean = lambda score: np.mean([score(t, s, sample_weight=w) for t, s in columns])  # noqa: E731
    expected = {
        "accuracy": reference.accuracy_score(truth, answer, sample_weight=w),
        "macro_f1": reference.f1_score(truth, answer, average="macro", sample_weight=w),
        "sensitivity": reference.recall_score(truth, answer, average="macro", sample_weight=w),
        "precision": reference.precision_score(truth, answer, average="macro", sample_weight=w),
        "auc": mean(reference.roc_auc_score),
        "pr_auc": mean(reference.average_precision_score),
        "quadratic_kappa": reference.cohen_kappa_score(
            truth, answer, weights="quadratic", sample_weight=w
        ),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize("classes", [3, 5])
def test_a_class_that_nobody_has_or_is_given_is_not_counted(classes):
    """As at a site without a patient of it; scikit-learn looks at the classes that occur."""
    truth, p, _ = random_patients(classes, seed=classes)
    truth, p = truth[truth < classes - 1], p[truth < classes - 1]
    p[:, -1] = 0
    found, answer = one(Answered(truth, p)), p.argmax(axis=1)
    for name, score in (
        ("precision", reference.precision_score),
        ("sensitivity", reference.recall_score),
        ("macro_f1", reference.f1_score),
    ):
        assert found[name] == pytest.approx(score(truth, answer, average="macro"))
    given = p.copy()
    given[0] = np.eye(classes)[-1]  # who is given it has it not
    answer = given.argmax(axis=1)
    expected = reference.precision_score(truth, answer, average="macro")
    assert one(Answered(truth, given))["precision"] == pytest.approx(expected)


def test_several_labels_as_scikit_learn_has_them():
    rng = np.random.default_rng(1)
    truth = (rng.random((80, 4)) < 0.4).astype(np.int64)
    p = np.clip(rng.random((80, 4)) * 0.7 + 0.3 * truth, 0, 1)
    w = rng.integers(0, 3, 80).astype(float)
    found = one(Answered(truth, p), w)
    mean = lambda score, of: np.mean(  # noqa: E731
        [score(truth[:, c], of[:, c], sample_weight=w) for c in range(4)]
    )
    assert found["auc"] == pytest.approx(mean(reference.roc_auc_score, p))
    assert found["sensitivity"] == pytest.approx(mean(reference.recall_score, p >= 0.5))
    assert found["macro_f1"] == pytest.approx(mean(reference.f1_score, p > 0.5))
    assert found["balanced_accuracy"] == pytest.approx(
        mean(reference.balanced_accuracy_score, p > 0.5)
    )


def test_the_calibration_error_as_a_loop_over_bins():
    truth, p, w = random_patients(4, seed=9)
    sure, right = p.max(axis=1), p.argmax(axis=1) == truth
    error = 0.0
    for k in range(BINS):
        here = (sure > k / BINS) & (sure <= (k + 1) / BINS)
        if w[here].sum():
            gap = np.average(right[here], weights=w[here]) - np.average(sure[here], weights=w[here])
            error += w[here].sum() / w.sum() * abs(gap)
    assert one(Answered(truth, p), w)["calibration_error"] == pytest.approx(error)


def test_weights_are_repetitions():
    truth, p, w = random_patients(3, seed=4)
    again = np.repeat(np.arange(len(truth)), w.astype(int))
    assert one(Answered(truth, p), w) == pytest.approx(one(Answered(truth[again], p[again])))


def test_what_is_not_defined_is_nan():
    found = one(Answered(np.array([1, 1]), np.array([[0.2, 0.8], [0.6, 0.4]])))
    assert np.isnan(found["auc"])
    assert np.isnan(found["specificity"])
    assert found["sensitivity"] == pytest.approx(0.5)


def test_diverged_probabilities_have_no_ranking():
    found = one(Answered(np.array([0, 1]), np.array([[np.nan, np.nan], [0.5, 0.5]])))
    assert np.isnan(found["auc"])
    assert found["accuracy"] == pytest.approx(0.5)
