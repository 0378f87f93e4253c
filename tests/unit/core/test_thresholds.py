"""Bins of probabilities: the curves are those of the single examples, and no example is alone."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from fedexp.core.thresholds import ANSWER, LEAST, MOST_ROWS, Bin, thresholds

RNG = np.random.default_rng(7)


def some(n: int, prior: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities `[n, classes]` of a fair model, and the truth."""
    classes = len(prior)
    y = RNG.choice(classes, n, p=prior)
    logits = RNG.normal(size=(n, classes)) + 2 * np.eye(classes)[y]
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), y


def of(bins: list[Bin], name: str) -> list[Bin]:
    return [one for one in bins if one.of == name]


def area(bins: list[Bin]) -> float:
    true, false = (np.cumsum([0, *column]) for column in list(zip(*bins, strict=True))[3:])
    return float(np.trapezoid(true / true[-1], false / false[-1]))


def test_what_is_above_a_threshold_is_what_a_loop_counts() -> None:
    p, y = some(400, [0.7, 0.2, 0.1])
    for c in range(3):
        above = 0
        for one in of(thresholds(p, y), str(c)):
            above += one.positives
            assert above == sum(1 for k in range(400) if p[k, c] >= one.at_least and y[k] == c)


@pytest.mark.parametrize("prior", [[0.5, 0.5], [0.99, 0.01]])
def test_the_area_is_that_of_the_single_examples(prior: list[float]) -> None:
    p, y = some(3000, prior)
    bins = thresholds(p, y)
    assert {one.of for one in bins} == {"1"}
    assert area(bins) == pytest.approx(roc_auc_score(y == 1, p[:, 1]), abs=0.01)


def test_the_answers_are_judged_as_accuracy_does() -> None:
    p, y = some(500, [0.4, 0.3, 0.3])
    answers = of(thresholds(p, y), ANSWER)
    assert sum(one.positives for one in answers) == int((p.argmax(axis=1) == y).sum())
    assert sum(one.positives + one.negatives for one in answers) == 500


def test_no_bin_is_about_a_few_and_the_table_is_small() -> None:
    for n, classes in ((60, 2), (333, 10), (2000, 300), (100, 1500)):
        bins = thresholds(*some(n, [1 / classes] * classes))
        assert min(one.positives + one.negatives for one in bins) >= LEAST
        assert len(bins) <= MOST_ROWS + 100
    (alone,) = thresholds(np.array([[0.2, 0.8], [0.6, 0.4]]), np.array([1, 0]))
    assert alone[3:] == (1, 1)


def test_equal_scores_are_one_bin() -> None:
    p = np.repeat([[0.3, 0.7], [0.6, 0.4]], 50, axis=0)
    assert [one.at_least for one in thresholds(p, RNG.integers(0, 2, 100))] == [0.7, 0.4]


def test_labels_are_judged_each_by_itself() -> None:
    p, y = RNG.random((80, 2)), RNG.integers(0, 2, (80, 2)).astype(np.uint8)
    bins = thresholds(p, y)
    assert {one.of for one in bins} == {"0", "1"}
    assert [sum(b.positives for b in of(bins, c)) for c in "01"] == y.sum(axis=0).tolist()


def test_a_model_that_diverged_has_none() -> None:
    assert thresholds(np.full((9, 3), np.nan), np.zeros(9, dtype=int)) == []
