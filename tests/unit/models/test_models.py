"""Models: their documented sizes, and what they refuse."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fedexp.core.checks import InputError
from fedexp.models import cnn, logistic, mlp, resnet18, small_cnn


def parameters(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("model", "by_hand"),
    [
        (logistic((1, 28, 28), 10), 784 * 10 + 10),
        (logistic((1, 8, 8), 2), 64 * 2 + 2),
        (mlp((1, 28, 28), 10, (200, 200)), 785 * 200 + 201 * 200 + 201 * 10),
        (mlp((3, 28, 28), 7, ()), 3 * 784 * 7 + 7),
        (
            cnn((1, 28, 28), 10),
            26 * 32 + (25 * 32 + 1) * 64 + (7 * 7 * 64 + 1) * 512 + 513 * 10,
        ),
        (small_cnn((1, 28, 28), 10), 10 * 16 + (9 * 16 + 1) * 40 + (7 * 7 * 40 + 1) * 10),
        (small_cnn((3, 8, 8), 2), 28 * 16 + (9 * 16 + 1) * 40 + (2 * 2 * 40 + 1) * 2),
    ],
    ids=["logistic", "logistic 8x8", "mlp", "mlp colour", "cnn", "small_cnn", "small_cnn 8x8"],
)
def test_sizes_by_hand(model, by_hand):
    assert parameters(model) == by_hand


def test_sizes_of_the_papers():
    assert parameters(logistic((1, 28, 28), 10)) == 7_850
    assert parameters(mlp((1, 28, 28), 10, (200, 200))) == 199_210  # McMahan et al. 2017
    assert parameters(cnn((1, 28, 28), 10)) == 1_663_370  # McMahan et al. 2017
    assert parameters(small_cnn((1, 28, 28), 10)) == 25_570


def test_resnet18_differs_from_torchvisions_in_its_first_layers_and_norms():
    from torchvision.models import resnet18 as torchvisions

    ours, theirs = resnet18((1, 28, 28), 10, 32), torchvisions(num_classes=10)
    # A norm has a weight and a bias a channel in both; the first convolution is 3x3 on grey.
    difference = 64 * 3 * 7 * 7 - 64 * 1 * 3 * 3
    assert parameters(ours) == parameters(theirs) - difference
    assert not [m for m in ours.modules() if isinstance(m, nn.BatchNorm2d)]
    norms = [m for m in ours.modules() if isinstance(m, nn.GroupNorm)]
    assert len(norms) == len([m for m in theirs.modules() if isinstance(m, nn.BatchNorm2d)])
    assert {norm.num_groups for norm in norms} == {32}


def test_resnet18_keeps_the_resolution_of_small_images():
    model = resnet18((3, 28, 28), 5, 32)
    seen = []
    model.layer1.register_forward_hook(lambda module, given, out: seen.append(out.shape))
    model(torch.zeros(1, 3, 28, 28))
    assert seen == [(1, 64, 28, 28)]


def test_logistic_regression_is_linear_in_the_pixels():
    model = logistic((1, 2, 2), 3)
    x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    layer = model[-1]
    expected = layer.weight @ torch.tensor([1.0, 2.0, 3.0, 4.0]) + layer.bias
    torch.testing.assert_close(model(x)[0], expected)


def test_an_mlp_has_a_relu_after_every_hidden_layer_and_none_at_the_end():
    kinds = [type(layer).__name__ for layer in mlp((1, 2, 2), 3, (5, 4))]
    assert kinds == ["Flatten", "Linear", "ReLU", "Linear", "ReLU", "Linear"]


@pytest.mark.parametrize("model", [cnn, small_cnn])
@pytest.mark.parametrize("shape", [(1, 3, 28), (1, 28, 3), (784,), (28, 28)])
def test_convolutions_refuse_what_is_no_image_or_too_small(model, shape):
    with pytest.raises(InputError, match=r"input_shape=.*at least 4x4 pixels"):
        model(shape, 10)


@pytest.mark.parametrize("model", [cnn, small_cnn])
def test_convolutions_take_the_smallest_image_they_promise(model):
    assert model((1, 4, 5), 3)(torch.zeros(2, 1, 4, 5)).shape == (2, 3)


@pytest.mark.parametrize("width", [0, -1, 2.5, True])
def test_an_mlp_refuses_a_layer_without_units(width):
    with pytest.raises(InputError, match="hidden="):
        mlp((1, 2, 2), 3, (5, width))


@pytest.mark.parametrize("groups", [0, -1, 3, 128])
def test_resnet18_refuses_groups_that_do_not_divide_its_channels(groups):
    with pytest.raises(InputError, match=f"groups={groups}: "):
        resnet18((1, 28, 28), 10, groups)


@pytest.mark.parametrize("make", [cnn, small_cnn])
def test_pooling_before_relu_has_the_bits_of_pooling_after_it(make):
    torch.manual_seed(0)
    pooled_first = make((1, 8, 8), 3)
    layers = list(pooled_first)
    for place in (1, 4):
        layers[place : place + 2] = [layers[place + 1], layers[place]]
    as_published = nn.Sequential(*layers)
    assert [type(layer) for layer in as_published[:3]] == [nn.Conv2d, nn.ReLU, nn.MaxPool2d]
    x, y = torch.randn(6, 1, 8, 8), torch.tensor([0, 1, 2, 0, 1, 2])
    x[0] = 0  # of a constant image, all that is pooled is the same
    logits, gradients = [], []
    for model in (pooled_first, as_published):
        logits.append(model(x))
        loss = F.cross_entropy(logits[-1], y)
        gradients.append(
            torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])
        )
    assert torch.equal(*logits)
    assert torch.equal(*gradients)
