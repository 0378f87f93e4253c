"""Steps by hand against the same training on autograd's gradients, and which models get them."""

import copy
from itertools import pairwise

import pytest
import torch
from torch import nn

from fedexp.core.examples import Split
from fedexp.core.flat import TaskModel, vector_of
from fedexp.core.rng import torch_generator
from fedexp.core.types import ClientTask
from fedexp.models import cnn, logistic, mlp, small_cnn
from fedexp.tasks.multiclass import IGNORED, Multiclass
from fedexp.tasks.multilabel import Multilabel
from fedexp.training import by_hand, written_out
from fedexp.training.schedules import Constant
from fedexp.training.sgd import LocalSGD

SHAPE = (1, 4, 4)


def trainer(**changes):
    plain = {"momentum": 0.0, "weight_decay": 0.0, "proximal": 0.0}
    options = {"lr": 0.1, "batch_size": 4, "epochs": 2, "steps": None, "schedule": Constant()}
    return LocalSGD(**{**options, **plain, **changes})


def shard(shape=SHAPE, n=10):
    g = torch_generator(0)
    return Split(torch.randn(n, *shape, generator=g), torch.randint(0, 3, (n,), generator=g))


def perceptron(*widths, bias=True, flatten=True):
    torch.manual_seed(1)
    layers = [nn.Flatten()] if flatten else []
    for place, (wide, narrow) in enumerate(pairwise(widths)):
        layers += [nn.ReLU()] * (place > 0) + [nn.Linear(wide, narrow, bias=bias)]
    return nn.Sequential(*layers)


def model_of(module, task=None):
    model = TaskModel(module, torch.device("cpu"), task or Multiclass())
    model.load(vector_of(module))
    return model


def trained(train, module, data, task=None):
    model = model_of(module, task)
    report = train(model, data, ClientTask(0, vector_of(module), 0, 7))
    return model.vector, report.metrics["loss"]


def by_autograd(rule):
    """The same training on gradients that somebody looks at, which have to be there for it."""
    return rule.adjusted(lambda gradients: gradients)


TASKS = {
    "plain": Multiclass(),
    "weighted": Multiclass(class_weights=[1, 2, 0.5]),
    "own weights": Multiclass(class_weights="balanced"),
    "focal": Multiclass("focal"),
}


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"momentum": 0.9},
        {"weight_decay": 0.1},
        {"proximal": 0.5},
        {"momentum": 0.9, "weight_decay": 0.1, "proximal": 0.5},
    ],
)
def test_equals_autograd(options, task):
    module, rule = mlp(SHAPE, 3, hidden=(6, 5)), trainer(**options)
    assert by_hand.can_be_trained(model_of(module), shard().x[:1])
    vector, loss = trained(rule, module, shard(), task)
    expected, expected_loss = trained(by_autograd(rule), module, shard(), task)
    assert not torch.equal(vector, vector_of(module))
    torch.testing.assert_close(vector, expected, rtol=1e-5, atol=1e-6)
    assert loss == pytest.approx(expected_loss, rel=1e-5)


def test_equals_autograd_for_several_labels():
    data = shard()
    data = data.with_y(torch.nn.functional.one_hot(data.y, 3).to(torch.uint8))
    module = mlp(SHAPE, 3, hidden=(6,))
    vector, _ = trained(trainer(), module, data, Multilabel())
    expected, _ = trained(by_autograd(trainer()), module, data, Multilabel())
    torch.testing.assert_close(vector, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (logistic(SHAPE, 3), SHAPE),
        (perceptron(16, 5, 3, bias=False), SHAPE),
        (perceptron(9, 5, 3, flatten=False), (9,)),
        (perceptron(9, 5, 3), (9,)),
    ],
    ids=["one layer", "without biases", "of rows", "of rows, flattened"],
)
def test_other_perceptrons(module, shape):
    data = shard(shape)
    assert by_hand.can_be_trained(model_of(module), data.x[:1])
    vector, _ = trained(trainer(), module, data)
    expected, _ = trained(by_autograd(trainer()), module, data)
    torch.testing.assert_close(vector, expected, rtol=1e-5, atol=1e-6)


IMAGES = (2, 9, 8)


def network(*parts, rows):
    torch.manual_seed(1)
    return nn.Sequential(*parts, nn.Flatten(), nn.Linear(rows, 3))


CHAINS = {
    "cnn": (cnn, (1, 12, 12)),
    "small_cnn": (small_cnn, (3, 8, 8)),
    "without biases": (lambda *_: network(nn.Conv2d(2, 4, 3, bias=False), rows=168), IMAGES),
    "strides": (lambda *_: network(nn.Conv2d(2, 4, (3, 2), stride=(2, 1)), rows=112), IMAGES),
    "groups, dilation and padding": (
        lambda *_: network(nn.Conv2d(2, 4, 3, padding=2, dilation=2, groups=2), rows=288),
        IMAGES,
    ),
    "ReLU before pooling": (
        lambda *_: network(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.MaxPool2d(2), rows=36),
        IMAGES,
    ),
    "pooled first": (lambda *_: network(nn.MaxPool2d(2), nn.ReLU(), rows=32), IMAGES),
    "windows that overlap": (
        lambda *_: network(nn.Conv2d(2, 4, 3), nn.MaxPool2d(3, 2, 1, ceil_mode=True), rows=64),
        IMAGES,
    ),
}


@pytest.mark.parametrize("options", [{}, {"momentum": 0.9, "weight_decay": 0.1, "proximal": 0.5}])
@pytest.mark.parametrize(("make", "shape"), CHAINS.values(), ids=CHAINS)
def test_chains_with_convolutions_equal_autograd(make, shape, options):
    module, data, rule = make(shape, 3), shard(shape), trainer(**options)
    assert by_hand.can_be_trained(model_of(module), data.x[:1])
    before = data.x.clone()
    vector, loss = trained(rule, module, data)
    expected, expected_loss = trained(by_autograd(rule), module, data)
    torch.testing.assert_close(vector, expected, rtol=1e-4, atol=1e-5)
    assert loss == pytest.approx(expected_loss, rel=1e-4)
    assert torch.equal(data.x, before)


@pytest.mark.parametrize(
    "module",
    [
        network(nn.Conv2d(2, 4, 3, padding="same"), rows=288),
        network(nn.Conv2d(2, 4, 3, padding=1, padding_mode="reflect"), rows=288),
        network(nn.Conv2d(2, 4, 3), nn.AvgPool2d(2), rows=36),
        network(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), rows=168),
        network(nn.ReLU(), nn.Conv2d(2, 4, 3), rows=168),
        nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Linear(6, 3)),
        nn.Sequential(nn.Conv2d(2, 3, (9, 8)), nn.Flatten()),
    ],
    ids=[
        *["padded by a word", "reflected", "means", "batch norm", "ReLU of the examples"],
        *["rows of an image", "ends in Flatten"],
    ],
)
def test_any_other_network_goes_by_autograd(module):
    assert not by_hand.can_be_trained(model_of(module), shard(IMAGES).x[:1])


class MyLinear(nn.Linear):
    def forward(self, x):
        return super().forward(2 * x)


def hooked():
    module = perceptron(16, 5, 3)
    module[1].register_forward_hook(lambda layer, inputs, output: 2 * output)
    return module


def frozen():
    module = perceptron(16, 5, 3)
    module[1].weight.requires_grad_(False)
    return module


def shared():
    layer = nn.Linear(16, 16)
    return nn.Sequential(nn.Flatten(), layer, nn.ReLU(), layer)


def replaced():
    module = perceptron(16, 5, 3)
    module[1].forward = lambda x: torch.zeros(len(x), 5)
    return module


@pytest.mark.parametrize(
    "module",
    [
        hooked(),
        frozen(),
        shared(),
        replaced(),
        nn.Sequential(nn.Flatten(), MyLinear(16, 3)),
        nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(16, 3)),
        nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.Tanh(), nn.Linear(5, 3)),
        nn.Sequential(nn.Flatten(), nn.Linear(16, 3), nn.ReLU()),
        nn.Sequential(nn.Flatten(2), nn.Linear(16, 3), nn.Flatten()),
        nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)),
        nn.Sequential(nn.Linear(4, 3)),  # of the rows of an image
        nn.Linear(16, 3),
    ],
    ids=[
        *["hooked", "frozen", "shared", "replaced", "subclass", "dropout", "tanh", "ends in ReLU"],
        *["flattened twice", "batch norm", "rows of an image", "no Sequential"],
    ],
)
def test_any_other_model_goes_by_autograd(module):
    assert not by_hand.can_be_trained(model_of(module), shard().x[:1])


def test_where_the_two_disagree_autograd_is_used_and_the_log_says_so(monkeypatch, caplog):
    module = mlp(SHAPE, 3, hidden=(6,))
    expected, _ = trained(by_autograd(trainer()), module, shard())

    def wrong(*arguments):
        raise AssertionError("it was used")

    monkeypatch.setattr(by_hand, "_agrees_with_autograd", lambda module, example: False)
    monkeypatch.setattr(by_hand.DescentByHand, "__call__", wrong)
    vector, _ = trained(trainer(), module, shard())
    assert torch.equal(vector, expected)
    assert "autograd is used" in caplog.text


def test_a_wrong_product_is_found(monkeypatch):
    def half(self, slope, pile, move, wanted):
        return backward(self, slope / 2, pile, move, wanted)

    backward = written_out.Affine.backward
    monkeypatch.setattr(written_out.Affine, "backward", half)
    assert not by_hand.can_be_trained(model_of(mlp(SHAPE, 3, hidden=(6,))), shard().x[:1])


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_the_slope_of_a_task_is_autograds(task):
    logits, y = torch.randn(6, 3, generator=torch_generator(1)), torch.tensor([0, 1, 2, 2, 1, 0])
    y[3] = IGNORED
    leaf = copy.copy(logits).requires_grad_()
    expected = task.loss(leaf, y)
    (slope,) = torch.autograd.grad(expected, leaf)
    loss, found = task.slope(logits, y)
    assert torch.equal(loss, expected.detach())
    assert torch.equal(found, slope)
    assert not loss.requires_grad


def test_a_diverged_model_stays_diverged():
    module = mlp(SHAPE, 3, hidden=(6,))
    with torch.no_grad():
        module[1].weight.fill_(torch.nan)
    vector, loss = trained(trainer(), module, shard())
    assert not vector.isfinite().any()
    assert loss != loss
