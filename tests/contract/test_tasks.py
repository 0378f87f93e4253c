"""What every task of conf/task must keep, on labels of its kind."""

import pickle

import numpy as np
import pytest
import torch

from tests.support.composing import choices, part

CLASSES, N = 4, 60


@pytest.fixture(params=choices("task"))
def task(request):
    return part("task", request.param)


@pytest.fixture
def logits():
    return torch.randn(N, CLASSES, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def y(task):
    if task.one_class:
        return torch.arange(N) % CLASSES
    marks = torch.rand(N, CLASSES, generator=torch.Generator().manual_seed(1))
    return (marks > 0.5).to(torch.uint8)


def test_the_configs_were_found():
    assert {"multiclass", "multilabel"} <= set(choices("task"))


def test_it_takes_its_own_labels_and_can_be_sent(task, y):
    task.check(y, CLASSES)
    assert pickle.loads(pickle.dumps(task)) == task


def test_the_loss_is_the_mean_of_the_examples_own_and_has_a_gradient(task, logits, y):
    logits.requires_grad_()
    losses, loss = task.losses(logits, y), task.loss(logits, y)
    assert losses.shape == (N,)
    assert loss.shape == ()
    torch.testing.assert_close(loss, losses.mean())
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient.abs().min() > 0


def test_an_examples_loss_depends_on_nobody_else(task, logits, y):
    alone = torch.cat([task.losses(logits[i : i + 1], y[i : i + 1]) for i in range(N)])
    torch.testing.assert_close(task.losses(logits, y), alone)


def test_a_step_down_the_gradient_lowers_the_loss(task, logits, y):
    before = logits.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(task.loss(before, y), before)
    assert task.loss(logits - gradient, y) < task.loss(logits, y)


def test_predictions_look_like_labels_and_right_ones_are_worth_everything(task, y):
    certain = 20.0 * (torch.nn.functional.one_hot(y) if task.one_class else y.float()) - 10.0
    predicted = task.predict(certain.float())
    assert predicted.shape == y.shape
    assert predicted.dtype == y.dtype
    assert torch.equal(predicted, y)
    measured = task.measure(certain.float(), y)
    assert measured.pop("loss") < 1e-3
    assert all(value == pytest.approx(1.0) for value in measured.values()), measured


def test_it_measures_what_it_says_and_leaves_the_logits_alone(task, logits, y):
    before = logits.clone()
    measured = task.measure(logits, y)
    assert set(measured) == set(task.metrics) >= {"accuracy", "loss"}
    assert all(isinstance(value, float) for value in measured.values())
    assert torch.equal(logits, before)


def test_accuracy_is_the_share_of_predictions_that_are_labels(task, logits, y):
    share = float((task.predict(logits) == y).double().mean())
    assert task.measure(logits, y)["accuracy"] == pytest.approx(share)


def test_the_baseline_is_what_a_constant_answer_scores(task, y):
    baseline = task.majority_baseline(y, y)
    assert 1 / CLASSES <= baseline <= 1
    assert task.majority_baseline(y[:1], y[:1]) == 1


def test_counts_add_up_over_parts(task, y):
    counts = task.label_counts(y, CLASSES)
    assert counts.shape == (CLASSES,)
    parts = task.label_counts(y[:20], CLASSES) + task.label_counts(y[20:], CLASSES)
    assert np.array_equal(counts, parts)


def test_a_table_of_confusions_counts_every_example_if_there_is_one(task, logits, y):
    table = task.confusion(task.predict(logits), y, CLASSES)
    assert (table is not None) == task.one_class
    if table is not None:
        assert table.shape == (CLASSES, CLASSES)
        assert np.array_equal(table.sum(axis=1), task.label_counts(y, CLASSES))


def test_what_is_expected_of_a_mix_is_the_mean_over_its_classes(task, logits, y):
    mixes = np.array([[0.1, 0.2, 0.3, 0.4], [0.0, 1.0, 0.0, 0.0]])
    expected = task.own_mix_accuracy(task.predict(logits), y, mixes)
    if len(expected):
        of_classes = np.array(task.own_mix_accuracy(task.predict(logits), y, np.eye(CLASSES)))
        assert list(expected) == pytest.approx(list(mixes @ of_classes))
