"""Products with a gradient from the factors of linear layers: those with the gradient itself."""

import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fedexp.leakage.updates import factored_products
from fedexp.leakage.updates.cosine_distance import CosineDistance, direction
from fedexp.leakage.updates.expected_update import expected_gradient
from fedexp.leakage.updates.factored_products import linear_layers, products_with_gradient
from fedexp.models import cnn, lenet, mlp
from tests.support.observing import CLASSES, batches, digits, initialised, observed

DATA = digits()
SHAPE = (1, 8, 8)
PIXELS = SHAPE[0] * SHAPE[1] * SHAPE[2]


class Shared(nn.Module):
    """Two layers of one weight, one that is called twice, one without bias, one on pieces."""

    def __init__(self):
        super().__init__()
        self.pieces = nn.Linear(SHAPE[-1], SHAPE[-1])
        self.first = nn.Linear(PIXELS, PIXELS, bias=False)
        self.same = nn.Linear(PIXELS, PIXELS)
        self.tied = nn.Linear(PIXELS, PIXELS)
        self.tied.weight = self.same.weight
        self.twice = nn.Linear(PIXELS, PIXELS)
        self.last = nn.Linear(PIXELS, CLASSES)

    def forward(self, x):
        x = self.first(torch.tanh(self.pieces(x)).flatten(1))
        x = self.tied(torch.tanh(self.same(x)))
        return self.last(torch.tanh(self.twice(torch.tanh(self.twice(x)))))


class Frozen(nn.Module):
    """Two layers of which one is not trained."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(PIXELS, 20).requires_grad_(False)
        self.last = nn.Linear(20, CLASSES)

    def forward(self, x):
        return self.last(torch.tanh(self.first(x.flatten(1))))


class Unusual(nn.Module):
    """Layers whose weights do more than one call says, or that are not called as it is expected."""

    def __init__(self):
        super().__init__()
        self.again = nn.Linear(PIXELS, PIXELS)
        self.scaled = nn.Linear(PIXELS, PIXELS)
        self.scaled.register_forward_hook(lambda layer, inputs, output: torch.tanh(3 * output))
        self.named = nn.Linear(PIXELS, PIXELS)
        self.pieces = nn.Linear(SHAPE[-1], SHAPE[-1])
        self.patched = nn.Linear(PIXELS, PIXELS)
        self.patched.forward = lambda x: F.linear(x, 2 * self.patched.weight)
        self.last = nn.Linear(PIXELS, CLASSES)

    def forward(self, x):
        x = self.pieces(x.reshape(-1, SHAPE[-1])).reshape(len(x), PIXELS)
        x = torch.tanh(self.named(input=self.scaled(x)))
        x = F.linear(torch.tanh(self.again(x)), self.again.weight)
        return self.last(torch.tanh(self.patched(x)))


class Experts(nn.Module):
    """Each image goes to one of two layers: how many rows they are given depends on the images."""

    def __init__(self):
        super().__init__()
        self.one, self.other = nn.Linear(PIXELS, CLASSES), nn.Linear(PIXELS, CLASSES)

    def forward(self, x):
        x = x.flatten(1)
        bright = x.mean(dim=1) > 0.5
        to = self.one(x[bright]), self.other(x[~bright])
        return (
            to[0]
            .new_zeros(len(x), CLASSES)
            .index_put((bright,), to[0])
            .index_put((~bright,), to[1])
        )


MODELS = {
    "perceptron": (lambda: initialised(mlp, SHAPE, CLASSES, [30, 20]), ["1", "3", "5"]),
    "lenet": (lambda: initialised(lenet, SHAPE, CLASSES, "sigmoid", "default"), None),
    "cnn": (lambda: initialised(cnn, SHAPE, CLASSES), None),
    "shared": (Shared, ["first", "last"]),
    "frozen": (Frozen, ["last"]),
    "unusual": (Unusual, ["scaled", "last"]),
    "experts": (Experts, []),
}


@pytest.fixture(params=MODELS)
def case(request, monkeypatch):
    monkeypatch.setattr(factored_products, "WORTH_IT", 1)
    make, layers = MODELS[request.param]
    torch.manual_seed(0)
    return make(), layers


@pytest.mark.parametrize("n", [1, 3])
def test_they_are_those_with_the_gradient_and_so_is_their_slope(case, n):
    module, layers = case
    images = batches(DATA, n, 1)[0]
    knowledge = observed(module, DATA, images).knowledge
    found = linear_layers(knowledge)
    if layers is None:
        assert found, "nothing is tried"
    else:
        assert list(found) == layers

    parameters = knowledge.parameters(torch.float64)
    g = torch.Generator().manual_seed(1)
    wanted = {
        name: torch.randn(p.numel(), generator=g, dtype=torch.float64)
        for name, p in parameters.items()
    }
    knowledge.module.double()
    pixels = torch.rand(n, *SHAPE, generator=g, dtype=torch.float64)

    def by_factors(x):
        return torch.stack(
            products_with_gradient(knowledge, parameters, x, images.y, wanted, found)
        )

    def written(x):
        gradient = expected_gradient(knowledge, parameters, x, images.y)
        flat = {name: one.reshape(-1) for name, one in gradient.items()}
        along = torch.stack([one @ wanted[name] for name, one in flat.items()]).sum()
        return torch.stack([along, torch.stack([one @ one for one in flat.values()]).sum()])

    for function in (lambda x: x, torch.func.jacrev):
        torch.testing.assert_close(function(by_factors)(pixels), function(written)(pixels))


def test_small_layers_and_those_of_many_examples_are_written():
    module = initialised(mlp, SHAPE, CLASSES, [300])  # weights of 19,200 and 3,000 numbers
    few, many = (observed(module, DATA, batches(DATA, n, 1)[0]).knowledge for n in (2, 120))
    assert list(linear_layers(few)) == ["1"]
    assert list(linear_layers(many)) == []


def test_what_is_written_is_counted():
    module = initialised(mlp, SHAPE, CLASSES, [300])
    knowledge = observed(module, DATA, batches(DATA, 1, 1)[0]).knowledge
    distance = CosineDistance(knowledge, "derived")
    every = sum(p.numel() for p in module.parameters())
    assert distance.numbers_written(1) == every - 300 * PIXELS
    assert distance.numbers_written(2) == every
    clipped = dataclasses.replace(knowledge, clip_norm=1.0)
    assert CosineDistance(clipped, "derived").numbers_written(1) == every


def test_the_distance_at_the_images_themselves_is_none():
    module = initialised(mlp, SHAPE, CLASSES, [300])
    images = batches(DATA, 3, 1)[0]
    observation = observed(module, DATA, images)
    distance = CosineDistance(observation.knowledge, "derived")
    here = distance([(images.x, images.y)], direction(observation))
    assert float(here) == pytest.approx(0, abs=1e-5)
