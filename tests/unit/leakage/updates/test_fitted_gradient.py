"""Gradients along local steps, weighed to fit: against a loop by hand and NumPy's least squares."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fedexp.leakage.updates.expected_update import expected_gradient, gradients_along
from fedexp.leakage.updates.fitted_gradient import RIDGE, fitted_gradient
from fedexp.models import mlp
from tests.support.observing import CLASSES, batches, digits, initialised, known, observed

DATA = digits()
BATCH = batches(DATA, 2, 1)[0]
PIXELS = BATCH.x.double()
MLP = initialised(mlp, (1, 8, 8), CLASSES, [12])
STEPS = 3
SETTINGS = {"lr": 0.5, "local_steps": STEPS}


def flat(gradient):
    return torch.cat([g.reshape(-1) for g in gradient.values()])


def by_parameter(knowledge, row):
    names = knowledge.parameters(torch.float64)
    pieces = row.split([p.numel() for p in names.values()])
    return dict(zip(names, pieces, strict=True))


def fitted(observation, pixels, seen=None):
    knowledge = observation.knowledge
    parameters = knowledge.parameters(torch.float64)
    direction = F.normalize(flat(observation.gradient()), dim=0)
    sent = torch.ones_like(direction) if seen is None else seen
    pieces = by_parameter(knowledge, direction * sent), by_parameter(knowledge, sent)
    return flat(
        fitted_gradient(knowledge, parameters, [(pixels, BATCH.y)] * STEPS, *pieces)
    ), direction


@pytest.mark.parametrize("terms", [{}, {"momentum": 0.9, "weight_decay": 0.1}], ids=str)
def test_held_or_not_the_gradients_are_those_of_torchs_steps(terms):
    knowledge = known(MLP, DATA, BATCH, **SETTINGS, **terms)
    local = initialised(mlp, (1, 8, 8), CLASSES, [12]).double()
    optimizer = torch.optim.SGD(local.parameters(), lr=0.5, **terms)
    parameters = knowledge.parameters(torch.float64)
    arguments = (knowledge, parameters, [(PIXELS, BATCH.y)] * STEPS)
    ways = (gradients_along(*arguments, held) for held in (True, False))
    for held, derived in zip(*ways, strict=True):
        optimizer.zero_grad()
        F.cross_entropy(local(knowledge.normalisation.x(PIXELS)), BATCH.y).backward()
        by_torch = torch.cat([p.grad.reshape(-1) for p in local.parameters()])
        torch.testing.assert_close(flat(held), by_torch, rtol=0, atol=1e-10)
        torch.testing.assert_close(flat(derived), by_torch, rtol=0, atol=1e-10)
        optimizer.step()


def test_held_weights_are_constants_to_the_slope():
    knowledge = known(MLP, DATA, BATCH, **SETTINGS)
    pixels = PIXELS.clone().requires_grad_()
    here = knowledge.parameters(torch.float64)
    met = list(gradients_along(knowledge, here, [(pixels, BATCH.y)] * STEPS, held=True))
    (slope,) = torch.autograd.grad(flat(met[-1]).square().sum(), pixels, retain_graph=True)
    for gradient in met[:-1]:
        here = {name: (p - 0.5 * gradient[name]).detach() for name, p in here.items()}
    alone = flat(expected_gradient(knowledge, here, pixels, BATCH.y)).square().sum()
    (by_hand,) = torch.autograd.grad(alone, pixels)
    torch.testing.assert_close(slope, by_hand, rtol=0, atol=1e-10)


def test_weights_are_those_of_least_squares_with_a_ridge():
    observation = observed(MLP, DATA, BATCH, **SETTINGS)
    knowledge = observation.knowledge
    pixels = (PIXELS + 0.3).clamp(0, 1)
    sent = torch.ones(len(knowledge.params), dtype=torch.float64)
    sent[::3] = 0
    ours, direction = fitted(observation, pixels, sent)
    parameters = knowledge.parameters(torch.float64)
    met = gradients_along(knowledge, parameters, [(pixels, BATCH.y)] * STEPS)
    units = [F.normalize(flat(g) * sent, dim=0).numpy() for g in met]
    rows = np.vstack([np.array(units).T, np.sqrt(RIDGE) * np.eye(STEPS)])
    target = np.concatenate([(direction * sent).numpy(), np.zeros(STEPS)])
    weights = np.linalg.lstsq(rows, target)[0]
    torch.testing.assert_close(
        ours, torch.from_numpy(weights @ np.array(units)), rtol=0, atol=1e-10
    )


def test_true_images_explain_the_update():
    observation = observed(MLP, DATA, BATCH, **SETTINGS)
    right, direction = fitted(observation, PIXELS)
    wrong, _ = fitted(observation, PIXELS.flip(3))
    assert F.cosine_similarity(right, direction, dim=0) > 0.999
    assert F.cosine_similarity(wrong, direction, dim=0) < 0.95


def test_steps_without_gradient_weigh_nothing():
    knowledge = known(MLP, DATA, BATCH, **SETTINGS)
    nothing = torch.zeros(len(knowledge.params), dtype=torch.float64)
    observation = observed(MLP, DATA, BATCH, **SETTINGS)
    ours, _ = fitted(observation, PIXELS, nothing)
    assert torch.equal(ours, nothing)
