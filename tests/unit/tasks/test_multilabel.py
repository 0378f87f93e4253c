"""Several labels an example: against scikit-learn, torch and numbers worked out by hand."""

import math
import pickle

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, log_loss, roc_auc_score

from fedexp.core.checks import InputError
from fedexp.tasks.multilabel import Multilabel

TASK = Multilabel()


def random(n=200, labels=5, seed=0):
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, labels, generator=g)
    y = (logits + torch.randn(n, labels, generator=g) > 0.3).to(torch.uint8)
    return logits, y


def test_by_hand():
    logits = torch.tensor([[2.0, -1.0], [1.0, 1.0], [-3.0, 0.5]])
    y = torch.tensor([[1, 0], [0, 1], [0, 0]], dtype=torch.uint8)
    measured = TASK.measure(logits, y)
    assert measured["accuracy"] == pytest.approx(4 / 6)
    assert measured["exact_match"] == pytest.approx(1 / 3)
    # Label 0: 1 of 1 present and 1 of 2 absent; label 1: 1 of 1 and 1 of 2.
    assert measured["balanced_accuracy"] == pytest.approx(3 / 4)
    assert measured["macro_f1"] == pytest.approx(2 / 3)  # 2 TP / (2 TP + FP + FN) = 2/3, twice
    assert measured["auc"] == 1.0
    pairs = zip(logits.flatten(), y.flatten(), strict=True)
    terms = [math.log1p(math.exp(-z if t else z)) for z, t in pairs]
    assert measured["loss"] == pytest.approx(sum(terms) / 6)


@pytest.mark.parametrize("seed", range(5))
def test_against_scikit_learn_on_random_answers(seed):
    logits, y = random(seed=seed)
    measured, truth = TASK.measure(logits, y), y.numpy()
    predicted = (logits > 0).numpy().astype(int)
    assert measured["macro_f1"] == pytest.approx(f1_score(truth, predicted, average="macro"))
    assert measured["auc"] == pytest.approx(roc_auc_score(truth, logits.numpy(), average="macro"))
    probabilities = logits.double().sigmoid().numpy()
    by_label = [log_loss(truth[:, c], probabilities[:, c]) for c in range(5)]
    assert measured["loss"] == pytest.approx(np.mean(by_label))
    recalls = [((predicted[truth[:, c] == v, c] == v).mean(), c) for c in range(5) for v in (0, 1)]
    assert measured["balanced_accuracy"] == pytest.approx(np.mean([r for r, _ in recalls]))
    assert set(measured) == set(TASK.metrics)


def test_one_label_is_a_label_like_others():
    logits, y = random(labels=1)
    measured = TASK.measure(logits, y)
    assert measured["accuracy"] == measured["exact_match"]
    assert measured["auc"] == pytest.approx(roc_auc_score(y.numpy()[:, 0], logits.numpy()[:, 0]))
    assert measured["macro_f1"] == pytest.approx(
        f1_score(y.numpy()[:, 0], logits.numpy()[:, 0] > 0)
    )


@pytest.mark.parametrize("value", [0, 1])
def test_a_constant_label_has_no_auc_and_is_measured_without_a_warning(value):
    logits, y = random()
    y[:, 2] = value
    measured = TASK.measure(logits, y)
    assert math.isnan(measured["auc"])
    assert all(math.isfinite(v) for name, v in measured.items() if name != "auc")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_diverged_model_is_measured(bad):
    logits, y = random()
    logits[:] = bad
    measured = TASK.measure(logits, y)
    assert math.isnan(measured["auc"])
    assert not math.isfinite(measured["loss"])
    assert 0 <= measured["accuracy"] <= 1


def test_losses_are_the_means_over_labels_and_the_loss_is_theirs():
    logits, y = random(n=7)
    expected = torch.nn.BCEWithLogitsLoss(reduction="none")(logits, y.float()).mean(dim=1)
    assert torch.allclose(TASK.losses(logits, y), expected)
    assert float(TASK.loss(logits, y)) == pytest.approx(float(expected.mean()))


def test_the_baseline_gives_every_label_its_more_frequent_answer():
    train_y = torch.tensor([[1, 0, 1], [1, 0, 0], [1, 1, 0]], dtype=torch.uint8)  # 1, 0, 0
    y = torch.tensor([[1, 1, 0], [0, 0, 1]], dtype=torch.uint8)
    assert TASK.majority_baseline(y, train_y) == pytest.approx(3 / 6)


def test_counts_and_what_there_is_not():
    _, y = random()
    assert TASK.label_counts(y, 5).tolist() == y.long().sum(dim=0).tolist()
    assert TASK.confusion(y, y, 5) is None
    assert list(TASK.own_mix_accuracy(y, y, np.ones((2, 5)))) == []


def test_refuses_one_class_an_example():
    with pytest.raises(InputError, match="use task=multiclass"):
        TASK.check(torch.zeros(3, dtype=torch.int64), 2)


def test_it_can_be_sent():
    assert pickle.loads(pickle.dumps(TASK)) == TASK
