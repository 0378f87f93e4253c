"""Updates that one client made by plain SGD, as an adversary sees them, and scores of guesses."""

import copy
import os
from pathlib import Path

import torch
from scipy.optimize import linear_sum_assignment
from torch.nn import functional as F

from fedexp.core.examples import Split
from fedexp.core.flat import vector_of
from fedexp.core.normalise import Normalisation
from fedexp.core.step_rule import StepRule
from fedexp.data.digits import Digits
from fedexp.data.mnist import IDXImages
from fedexp.leakage.observation import Knowledge, Observation
from fedexp.tasks.multiclass import Multiclass

CLASSES = 10


def digits():
    """The 8x8 digits, all of which a client could hold."""
    dataset = Digits("digits", (1, 8, 8), 10, validation_size=180, test_size=360, split_seed=0)
    return dataset(Path()).train.as_floats()


def mnist():
    """The first thousand images of MNIST's training part."""
    dataset = IDXImages("mnist", "MNIST", (1, 28, 28), 10, validation_size=5000, split_seed=0)
    return dataset(Path(os.environ["FEDEXP_DATA_DIR"])).train.rows(torch.arange(1000)).as_floats()


def initialised(model, *arguments, seed=0, **settings):
    """What the constructor `model` gives under a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return model(*arguments, **settings)


def known(module, data, batch, *, lr=0.1, local_steps=1, labels=None, clip_norm=None, **terms):
    """What the adversary knows of an update from `batch`, pixels being scaled as `data` asks."""
    return Knowledge(
        module=module,
        params=vector_of(module),
        normalisation=Normalisation.of(data),
        task=Multiclass(),
        input_shape=tuple(data.x.shape[1:]),
        num_classes=CLASSES,
        batch_size=len(batch),
        rule=StepRule(lr, **terms),
        local_steps=local_steps,
        labels=labels,
        clip_norm=clip_norm,
    )


def as_torch_has_it(rule):
    return {"lr": rule.lr, "momentum": rule.momentum, "weight_decay": rule.weight_decay}


def observed(module, data, batch, **settings):
    """What the server receives of a client that holds `batch` and trains with torch's own SGD."""
    knowledge = known(module, data, batch, **settings)
    local = copy.deepcopy(module)
    optimizer = torch.optim.SGD(local.parameters(), **as_torch_has_it(knowledge.rule))
    for _ in range(knowledge.local_steps):
        optimizer.zero_grad()
        F.cross_entropy(local(knowledge.normalisation.x(batch.x)), batch.y).backward()
        optimizer.step()
    return Observation(vector_of(local) - knowledge.params, 1, knowledge)


def message(knowledge, gradient):
    """The observation of one step with a `gradient` made up by hand, by parameter."""
    names = knowledge.parameters(torch.float32)
    flat = torch.cat([gradient[name].float().reshape(-1) for name in names])
    return Observation(-knowledge.rule.lr * flat, 1, knowledge)


def batches(data, size, count):
    """The first `count` batches of `size`."""
    return [Split(data.x[i : i + size], data.y[i : i + size]) for i in range(0, count * size, size)]


def matched_mse(images, truth):
    """Mean squared error of every true image to the guess it is paired with best: `[n]`."""
    x, y = images.double().flatten(1), truth.double().flatten(1)
    errors = (x[:, None] - y[None]).square().mean(dim=2)
    guesses, targets = linear_sum_assignment(errors.numpy())
    assert sorted(targets) == list(range(len(truth)))
    return errors[guesses, targets]


def psnr_db(images, truth):
    """PSNR of every true image: `[n]`."""
    return -10 * matched_mse(images, truth).clamp_min(1e-20).log10()
