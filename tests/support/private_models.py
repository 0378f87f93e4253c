"""Models, images and trainers for tests of DP-SGD."""

import pytest
import torch
from torch import nn

from fedexp.core.examples import Split
from fedexp.core.flat import TaskModel, vector_of
from fedexp.core.rng import torch_generator
from fedexp.core.types import ClientTask
from fedexp.models import cnn, logistic, mlp, resnet18, small_cnn
from fedexp.privacy.dp_sgd import PrivateTraining
from fedexp.privacy.private_steps import CLIPPING, PrivateSteps
from fedexp.tasks.multiclass import Multiclass
from fedexp.training.schedules import Constant
from fedexp.training.sgd import LocalSGD

IMAGE = (2, 12, 10)  # two channels, and neither square nor alike: a wrong order of axes shows


def shard(n=7, shape=IMAGE, seed=0, classes=3):
    g = torch_generator(seed)
    return Split(torch.randn(n, *shape, generator=g), torch.randint(0, classes, (n,), generator=g))


def built(make):
    torch.manual_seed(1)
    return make()


SHIPPED = {
    "logistic": lambda: logistic(IMAGE, 3),
    "mlp": lambda: mlp(IMAGE, 3, hidden=(9, 8)),
    "cnn": lambda: cnn(IMAGE, 3),
    "small_cnn": lambda: small_cnn(IMAGE, 3),
    "resnet18": lambda: resnet18(IMAGE, 3, groups=32),  # has ReLUs in place
}


def every_way(names):
    """Models with ways of clipping; the one that takes seconds is tried in one of them."""
    pairs = [(name, clipping) for name in names for clipping in CLIPPING]
    slow = [name == "resnet18" and clipping != "auto" for name, clipping in pairs]
    marks = [[pytest.mark.slow] if late else [] for late in slow]
    return [pytest.param(*pair, marks=mark) for pair, mark in zip(pairs, marks, strict=True)]


def frozen(module, *names):
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name not in names)
    return module


def convolution(**options):
    layers = [nn.Conv2d(2, 4, **options), nn.ReLU(), nn.Flatten()]
    features = nn.Sequential(*layers)(torch.zeros(1, *IMAGE)).shape[1]
    return nn.Sequential(*layers, nn.Linear(features, 3))


def sgd(**changes):
    options = {
        "lr": 0.1,
        "batch_size": 4,
        "epochs": 2,
        "steps": None,
        "momentum": 0.0,
        "weight_decay": 0.0,
        "proximal": 0.0,
        "schedule": Constant(),
    }
    return LocalSGD(**{**options, **changes})


def private(trainer=None, clip_norm=1.0, noise_multiplier=1.0, clipping="auto"):
    steps = PrivateSteps(clip_norm, noise_multiplier, clipping, "task")
    return PrivateTraining(trainer or sgd(), steps)


def train(trainer, module, data, seed=7):
    start = vector_of(module)
    model = TaskModel(module, torch.device("cpu"), Multiclass())
    model.load(start)
    report = trainer(model, data, ClientTask(0, start, 0, seed))
    return model.vector.clone(), report


def module():
    return built(SHIPPED["mlp"])


def traces(module):
    """All that a hook or a wrapper could have left."""
    return [
        (name, sorted(vars(layer)), len(layer._forward_hooks), len(layer._backward_hooks))
        for name, layer in module.named_modules()
    ] + [(name, sorted(vars(p)), p.grad) for name, p in module.named_parameters()]
