"""The update expected of given images, against torch's own training and finite differences."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fedexp.leakage.observation import Observation
from fedexp.leakage.updates.expected_update import expected_gradient, expected_update, mean_gradient
from fedexp.models import lenet, mlp, small_cnn
from tests.support.observing import CLASSES, as_torch_has_it, batches, digits, initialised, known

DATA = digits()
SHAPE = (1, 8, 8)
BATCH = batches(DATA, 4, 1)[0]
PIXELS = BATCH.x.double()
MODELS = {
    "mlp": (mlp, (SHAPE, CLASSES, [12])),
    "small_cnn": (small_cnn, (SHAPE, CLASSES)),
    "lenet": (lenet, (SHAPE, CLASSES, "sigmoid", "uniform")),
}


def model(name):
    constructor, arguments = MODELS[name]
    return initialised(constructor, *arguments)


def trained(module, knowledge, pixels, targets):
    """What torch's SGD makes of the model in float64, minus what it was."""
    local = copy.deepcopy(module).double()
    optimizer = torch.optim.SGD(local.parameters(), **as_torch_has_it(knowledge.rule))
    for _ in range(knowledge.local_steps):
        optimizer.zero_grad()
        F.cross_entropy(local(knowledge.normalisation.x(pixels)), targets).backward()
        optimizer.step()
    before = module.double().state_dict()
    return {name: p - before[name] for name, p in local.state_dict().items()}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("local_steps", [1, 5])
def test_update_is_that_of_a_training_loop(name, local_steps):
    module = model(name)
    knowledge = known(module, DATA, BATCH, lr=0.3, local_steps=local_steps)
    parameters = knowledge.parameters(torch.float64)
    delta = expected_update(knowledge, parameters, PIXELS, BATCH.y)
    by_torch = trained(module, knowledge, PIXELS, BATCH.y)
    assert delta.keys() == by_torch.keys()
    for key, value in delta.items():
        torch.testing.assert_close(value, by_torch[key], rtol=0, atol=1e-10)


@pytest.mark.parametrize("local_steps", [1, 5])
@pytest.mark.parametrize(
    "terms", [{"momentum": 0.9}, {"weight_decay": 0.1, "momentum": 0.5}], ids=str
)
def test_momentum_and_weight_decay_belong_to_what_is_known(terms, local_steps):
    module = model("mlp")
    knowledge = known(module, DATA, BATCH, lr=0.3, local_steps=local_steps, **terms)
    parameters = knowledge.parameters(torch.float64)
    delta = expected_update(knowledge, parameters, PIXELS, BATCH.y)
    by_torch = trained(module, knowledge, PIXELS, BATCH.y)
    for key, value in delta.items():
        torch.testing.assert_close(value, by_torch[key], rtol=0, atol=1e-10)
    update = torch.cat([by_torch[name].flatten() for name in parameters])
    read = Observation(update, 1, knowledge).gradient()
    mean = mean_gradient(knowledge, parameters, [(PIXELS, BATCH.y)] * local_steps)
    for key, value in mean.items():
        torch.testing.assert_close(read[key], value, rtol=0, atol=1e-6)


def test_the_proximal_term_belongs_to_what_is_known():
    knowledge = known(model("mlp"), DATA, BATCH, lr=0.3, local_steps=3, proximal=0.7)
    start = knowledge.parameters(torch.float64)
    delta = expected_update(knowledge, start, PIXELS, BATCH.y)
    here = dict(start)
    for _ in range(3):
        gradient = expected_gradient(knowledge, here, PIXELS, BATCH.y)
        here = {n: p - 0.3 * (gradient[n] + 0.7 * (p - start[n])) for n, p in here.items()}
    for name, value in delta.items():
        torch.testing.assert_close(value, here[name] - start[name], rtol=0, atol=1e-10)


def test_one_step_is_a_multiple_of_the_gradient():
    knowledge = known(model("mlp"), DATA, BATCH, lr=0.3)
    given = (knowledge, knowledge.parameters(torch.float64), PIXELS, BATCH.y)
    gradient, delta = expected_gradient(*given), expected_update(*given)
    for name, g in gradient.items():
        torch.testing.assert_close(delta[name], -0.3 * g, rtol=1e-14, atol=0)


def test_the_knowledge_is_left_as_it_was():
    knowledge = known(model("mlp"), DATA, BATCH, local_steps=3)
    params, parameters = knowledge.params.clone(), knowledge.parameters(torch.float32)
    expected_update(knowledge, parameters, BATCH.x, BATCH.y)
    assert torch.equal(knowledge.params, params)
    assert not knowledge.params.requires_grad
    assert not any(p.requires_grad for p in parameters.values())


def test_certain_soft_labels_are_labels():
    knowledge = known(model("lenet"), DATA, BATCH)
    parameters = knowledge.parameters(torch.float64)
    soft = F.one_hot(BATCH.y, CLASSES).double()
    hard = expected_gradient(knowledge, parameters, PIXELS, BATCH.y)
    for name, g in expected_gradient(knowledge, parameters, PIXELS, soft).items():
        torch.testing.assert_close(g, hard[name])


def test_every_example_is_clipped_by_itself():
    module = model("small_cnn")
    plain = known(module, DATA, BATCH)
    parameters = plain.parameters(torch.float64)
    each = [
        expected_gradient(plain, parameters, PIXELS[[i]], BATCH.y[[i]]) for i in range(len(BATCH))
    ]
    norms = [float(sum(g.detach().square().sum() for g in e.values()).sqrt()) for e in each]
    clip_norm = sorted(norms)[1] * 1.01  # two are cut, two are not
    factors = [min(1, clip_norm / norm) for norm in norms]
    assert sum(f == 1 for f in factors) == 2
    clipped = expected_gradient(
        known(module, DATA, BATCH, clip_norm=clip_norm), parameters, PIXELS, BATCH.y
    )
    for name, g in clipped.items():
        by_hand = sum(f * e[name] for f, e in zip(factors, each, strict=True)) / len(BATCH)
        torch.testing.assert_close(g, by_hand)


@pytest.mark.parametrize("clip_norm", [None, 0.5], ids=["plain", "clipped"])
@pytest.mark.parametrize("steps", [1, 3])
def test_derivative_in_pixels_and_soft_labels(clip_norm, steps):
    module = initialised(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 3), nn.Tanh()))
    batch = BATCH.rows(torch.tensor([0, 1]))
    knowledge = known(module, DATA, batch, lr=0.5, clip_norm=clip_norm)
    parameters = knowledge.parameters(torch.float64)

    def flat(pixels, soft):
        gradients = mean_gradient(knowledge, parameters, [(pixels, soft)] * steps)
        return torch.cat([g.reshape(-1) for g in gradients.values()])

    soft = torch.tensor([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]], dtype=torch.float64)
    given = (PIXELS[:2].clone().requires_grad_(), soft.requires_grad_())
    assert torch.autograd.gradcheck(flat, given)
