"""Slopes of a linear model by hand, and of others by gradients of single examples."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from fedexp.core.examples import Split
from fedexp.core.flat import vector_of
from fedexp.core.normalise import Normalisation
from fedexp.leakage.membership import slopes as module
from fedexp.leakage.membership.slopes import cut, slopes
from fedexp.models import mlp, small_cnn
from fedexp.tasks.multiclass import Multiclass
from tests.support.composing import config_for  # noqa: F401 - registers the resolvers


def examples(n, *shape):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(n, *shape, generator=generator)
    return Split(x, torch.arange(n) % 3)


def asked(model, params, rows, part):
    return slopes(model, Multiclass(), Normalisation.none(), params, rows, part)


def test_a_linear_model_by_hand():
    """l = -log p_y; grad l . (dW, db) = sum_k (p_k - [k = y]) (dW x + db)_k."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2))
    # W = 0, b = 0: p = (1/2, 1/2). x = (1, 2), y = 0. dW = ((3, 0), (0, 0)), db = (0, 4); |u| = 5.
    part = Split(torch.tensor([[1.0, 2.0]]), torch.tensor([0]))
    row = torch.tensor([[3.0, 0, 0, 0, 0, 4.0]])
    # (-1/2) (3 * 1) + (1/2) 4 = 1/2: the loss rises by that along u, and falls by -1/10 along u/|u|
    found = asked(model, torch.zeros(6), row, part)
    assert found.ravel() == pytest.approx([-0.1])


def two_layers(shape, classes):
    return mlp(shape, classes, hidden=[8])


@pytest.mark.parametrize("make", [two_layers, small_cnn], ids=["mlp", "cnn"])
def test_against_the_gradient_of_every_example(make, monkeypatch):
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 2)
    torch.manual_seed(0)
    model = make((1, 8, 8), 3)
    part = examples(5, 1, 8, 8)
    params = vector_of(model)
    rows = torch.randn(3, len(params) + 4)  # what is sent beside the delta has no part in it
    expected = torch.empty(3, 5)
    for j in range(5):
        model.zero_grad()
        cross_entropy(model(part.x[j : j + 1]), part.y[j : j + 1]).backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
        units = rows[:, : len(params)]
        expected[:, j] = -(units / units.norm(dim=1, keepdim=True)) @ gradient
    found = torch.from_numpy(asked(model, params, rows, part))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


def test_a_row_of_zeros_tells_nothing():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    found = asked(model, vector_of(model), torch.zeros(1, 15), examples(2, 1, 2, 2))
    assert found.tolist() == [[0.0, 0.0]]


def test_buffers_are_cut_behind_parameters():
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2), nn.BatchNorm1d(2))
    vector = vector_of(model)
    pieces = cut(model, torch.stack([vector, vector + 1]))
    names = [name for name, _ in model.named_parameters()]
    assert list(pieces) == [*names, "2.running_mean", "2.running_var"]
    assert torch.equal(pieces["2.running_var"][1], torch.full((2,), 2.0))
