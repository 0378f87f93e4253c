"""The sum of clipped gradients against a loop over the examples, and against Opacus."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fedexp.core.flat import TaskModel
from fedexp.models import mlp
from fedexp.privacy.private_steps import CLIPPING
from fedexp.tasks.multiclass import Multiclass
from fedexp.training.per_example import channels_last, watching
from tests.support.private_models import (
    IMAGE,
    SHIPPED,
    built,
    convolution,
    every_way,
    frozen,
    shard,
)


class Sequences(nn.Module):
    """A linear layer over many places of an example, and the layers that text models have."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(4, 6)
        self.norm = nn.LayerNorm(6)
        self.linear = nn.Linear(6, 5, bias=False)
        self.conv = nn.Conv1d(5, 4, 3, padding=1)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        words = x.flatten(1)[:, :20].abs().mul(2).long().clamp(max=3)
        places = self.linear(self.norm(self.embedding(words)))
        return self.head(self.conv(places.transpose(1, 2)).tanh().mean(dim=2))


OTHERS = {
    "sequences": Sequences,
    "strides": lambda: convolution(kernel_size=(3, 2), stride=(2, 1), padding=(0, 2)),
    "dilation": lambda: convolution(kernel_size=3, dilation=(1, 2), padding="same"),
    "even kernel": lambda: convolution(kernel_size=(4, 1), padding=1, bias=False),
    "groups": lambda: convolution(kernel_size=3, groups=2),
    "instance norm": lambda: nn.Sequential(
        nn.InstanceNorm2d(2, affine=True), nn.Flatten(), nn.Linear(240, 3)
    ),
    "frozen weight": lambda: frozen(mlp(IMAGE, 3, hidden=(5,)), "1.weight"),
    "frozen bias": lambda: frozen(convolution(kernel_size=3), "0.bias"),
}


def model_of(module):
    return TaskModel(module, torch.device("cpu"), Multiclass())


def one_by_one(model, data):
    """The gradients of one example after the other, and their norms."""
    gradients = []
    for i in range(len(data)):
        loss = F.cross_entropy(
            model.module(model.arrange(data.between(i, i + 1))), data.y[i : i + 1]
        )
        gradients.append(torch.autograd.grad(loss, model.parameters))
    norms = [math.sqrt(sum(float(g.double().square().sum()) for g in each)) for each in gradients]
    return gradients, norms


def clipped_sum(model, data, clip_norm, clipping):
    """What `PrivateSteps` would divide and noise, and the norms that it clips by."""
    targets = {p: channels_last(p, torch.zeros(p.numel())) for p in model.parameters}
    with watching(model.module) as watch:
        logits = model.module(model.arrange(data))
        losses = F.cross_entropy(logits, data.y, reduction="none")
        layers = watch.gradients(losses, targets, clipping)
        norms = torch.stack([layer.squared_norms() for layer in layers]).sum(dim=0).sqrt()
        for layer in layers:
            layer.add_weighted_sum(clip_norm / norms.clamp_min(clip_norm))
    return list(targets.values()), norms.tolist()


def check_clipped_sum(make, clipping):
    model, data = model_of(built(make)), shard(5)
    gradients, norms = one_by_one(model, data)
    clip_norm = sorted(norms)[2]  # some examples are clipped and some are not
    factors = [min(1, clip_norm / norm) for norm in norms]
    expected = [
        sum(factor * g.double() for factor, g in zip(factors, of_parameter, strict=True))
        for of_parameter in zip(*gradients, strict=True)
    ]
    found, found_norms = clipped_sum(model, data, clip_norm, clipping)
    assert found_norms == pytest.approx(norms, rel=1e-5)
    scale = max(float(t.abs().max()) for t in expected)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-5 * scale)


@pytest.mark.parametrize(("name", "clipping"), every_way(SHIPPED))
def test_the_clipped_sum_of_every_model_is_that_of_a_loop(name, clipping):
    check_clipped_sum(SHIPPED[name], clipping)


@pytest.mark.parametrize("clipping", CLIPPING)
@pytest.mark.parametrize("name", OTHERS)
def test_the_clipped_sum_of_further_layers_is_that_of_a_loop(name, clipping):
    check_clipped_sum(OTHERS[name], clipping)


@pytest.mark.parametrize("clipping", CLIPPING)
def test_the_clipped_sum_is_that_of_opacus(clipping):
    """On images with the channels first, which is the order that its formulas take for granted."""
    from opacus import GradSampleModule
    from opacus.optimizers import DPOptimizer

    module, data = built(SHIPPED["small_cnn"]), shard()
    found, norms = clipped_sum(model_of(module), data, 0.5, clipping)
    assert max(norms) > 0.5
    theirs = GradSampleModule(copy.deepcopy(module))
    optimizer = DPOptimizer(
        torch.optim.SGD(theirs.parameters(), lr=1.0),
        noise_multiplier=0.0,
        max_grad_norm=0.5,
        expected_batch_size=len(data),
    )
    # Its hooks warn where the input of the first layer has no gradient of its own.
    F.cross_entropy(theirs(data.x.clone().requires_grad_()), data.y).backward()
    optimizer.clip_and_accumulate()
    for ours, p in zip(found, theirs.parameters(), strict=True):
        torch.testing.assert_close(ours, p.summed_grad, rtol=1e-4, atol=1e-6)


def test_auto_keeps_what_is_smaller():
    module = built(lambda: convolution(kernel_size=3, padding=1))
    model, data = model_of(module), shard()
    targets = {p: channels_last(p, torch.zeros(p.numel())) for p in model.parameters}

    def kinds(clipping):
        with watching(model.module) as watch:
            losses = F.cross_entropy(model.module(data.x), data.y, reduction="none")
            return [type(g).__name__ for g in watch.gradients(losses, targets, clipping)]

    # 120 places against 4 x 18 weights, and one place against 3 x 480.
    assert kinds("auto") == ["Materialised", "Factors"]
    assert kinds("ghost") == ["Factors", "Factors"]
    assert kinds("hooks") == ["Materialised", "Materialised"]
