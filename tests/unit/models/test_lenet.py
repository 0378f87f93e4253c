"""The LeNet of the gradient inversion papers."""

import pytest
import torch
from torch import nn

from fedexp.core.checks import InputError
from fedexp.models import lenet


@pytest.mark.parametrize(
    ("shape", "classes", "features"),
    [
        ((1, 28, 28), 10, 12 * 7 * 7),  # 588, as in iDLG's code
        ((3, 32, 32), 100, 12 * 8 * 8),  # 768, as in DLG's code
        ((1, 8, 8), 10, 12 * 2 * 2),
        ((3, 7, 13), 2, 12 * 2 * 4),
    ],
    ids=str,
)
def test_size_by_hand_and_logits(shape, classes, features):
    model = lenet(shape, classes, "sigmoid", "default")
    by_hand = 12 * (25 * shape[0] + 1) + 2 * 12 * (25 * 12 + 1) + (features + 1) * classes
    assert sum(p.numel() for p in model.parameters()) == by_hand
    assert model(torch.zeros(5, *shape)).shape == (5, classes)


def test_uniform_init_fills_all_of_the_papers_interval():
    for parameter in lenet((1, 28, 28), 10, "sigmoid", "uniform").parameters():
        assert parameter.abs().max() <= 0.5
        if parameter.numel() > 200:
            assert parameter.min() < -0.45
            assert parameter.max() > 0.45


def test_default_init_is_that_of_torch():
    torch.manual_seed(0)
    first = nn.Conv2d(1, 12, 5, padding=2, stride=2)
    torch.manual_seed(0)
    assert torch.equal(lenet((1, 28, 28), 10, "relu", "default")[0].weight, first.weight)


@pytest.mark.parametrize(
    ("activation", "module"), [("sigmoid", nn.Sigmoid), ("relu", nn.ReLU)], ids=str
)
def test_the_activation_follows_every_convolution(activation, module):
    layers = list(lenet((1, 28, 28), 10, activation, "default"))
    assert [type(layer) for layer in layers[:6]] == 3 * [nn.Conv2d, module]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"activation": "sigmod"}, "activation=sigmod: did you mean sigmoid?"),
        ({"init": "unifrom"}, "init=unifrom: did you mean uniform?"),
        ({"input_shape": (28, 28)}, r"input_shape=\[28, 28\]: needs images .*width"),
    ],
    ids=str,
)
def test_refusals(changed, message):
    settings = {"input_shape": (1, 28, 28), "activation": "relu", "init": "default"}
    with pytest.raises(InputError, match=message):
        lenet(num_classes=10, **settings | changed)
