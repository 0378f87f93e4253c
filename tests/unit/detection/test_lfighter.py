"""LFighter against loops typed from algorithm 1 and procedure 1 of Jebreel et al. 2024."""

import math

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from torch import nn

from fedexp.core.checks import InputError
from fedexp.core.rng import generator
from fedexp.core.round_model import OutputLayer, RoundModel
from fedexp.core.types import Updates
from fedexp.detection.lfighter import LFighter
from fedexp.tasks.multiclass import Multiclass

INPUTS, HIDDEN, CLASSES = 6, 5, 4


def module():
    return nn.Sequential(nn.Linear(INPUTS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES))


D = sum(p.numel() for p in module().parameters())
LAYER = OutputLayer.of(module())


def rows(matrix):
    model = RoundModel(torch.zeros(D), module(), Multiclass(), (INPUTS,))
    examples = torch.ones(len(matrix), dtype=torch.float64)
    return Updates(matrix, tuple(range(len(matrix))), examples, model=model)


def cohort(seed, n=12, flipping=3):
    """Those that flip labels push the neurons of classes 1 and 3 the other way, and more alike."""
    g = torch.Generator().manual_seed(seed)
    matrix = 0.3 * torch.randn(n, D, generator=g)
    weights = LAYER.weights(matrix)
    weights[:, 1] += 2
    weights[:, 3] -= 2
    weights[:flipping, 1] = -1 + 0.05 * torch.randn(flipping, HIDDEN, generator=g)
    weights[:flipping, 3] = 1 + 0.05 * torch.randn(flipping, HIDDEN, generator=g)
    return matrix


def naive(matrix):
    """The bad peers."""
    n, weight_at, bias_at = len(matrix), INPUTS * HIDDEN + HIDDEN, D - CLASSES
    x = matrix.double().numpy()
    gradients = [
        [x[k, weight_at + i * HIDDEN : weight_at + (i + 1) * HIDDEN] for i in range(CLASSES)]
        for k in range(n)
    ]
    magnitudes = [
        sum(np.linalg.norm(gradients[k][i]) + abs(x[k, bias_at + i]) for k in range(n))
        for i in range(CLASSES)
    ]
    first, second = np.argsort(magnitudes)[-2:]
    data = [np.concatenate([gradients[k][first], gradients[k][second]]) for k in range(n)]
    labels = KMeans(2, n_init=10, random_state=0).fit(data).labels_
    scores = []
    for c in (0, 1):
        members = [data[k] for k in range(n) if labels[k] == c]
        largest = []
        for a in members:
            angles = [0.0]
            for b in members:
                if a is not b:
                    angles.append(math.acos(a @ b / np.linalg.norm(a) / np.linalg.norm(b)))
            largest.append(max(angles))
        scores.append(len(members) / n * sum(largest) / len(members))
    bad = 0 if scores[0] < scores[1] else 1
    return [k for k in range(n) if labels[k] == bad]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("flipping", [1, 3, 5])
def test_the_bad_peers_are_the_papers(seed, flipping):
    matrix = cohort(seed, flipping=flipping)
    verdict, state = LFighter("drop")(rows(matrix), {}, generator(seed, "test"))
    assert verdict.flagged.nonzero().flatten().tolist() == naive(matrix) == list(range(flipping))
    assert (verdict.trust == 0).tolist() == verdict.flagged.tolist()
    assert state == {}


def test_rows_that_carry_more_than_the_delta_are_looked_at_alike():
    matrix = cohort(0)
    longer = torch.cat([matrix, 9 * torch.randn(len(matrix), 7)], dim=1)
    verdict, _ = LFighter("drop")(rows(longer), {}, generator(0, "test"))
    assert verdict.flagged.nonzero().flatten().tolist() == [0, 1, 2]


def test_without_a_model_it_says_what_it_needs():
    bare = Updates(torch.ones(4, D), (0, 1, 2, 3), torch.ones(4, dtype=torch.float64))
    with pytest.raises(InputError, match="needs the model"):
        LFighter("drop")(bare, {}, generator(0, "test"))


@pytest.mark.parametrize(
    "ending",
    [
        nn.Sequential(nn.Linear(INPUTS, CLASSES), nn.ReLU()),
        nn.Sequential(nn.Linear(INPUTS, CLASSES, bias=False)),
        nn.Sequential(nn.Conv1d(1, 1, 3)),
        nn.Sequential(nn.Linear(INPUTS, CLASSES), nn.Softmax(dim=1)),
        nn.Sequential(nn.Linear(INPUTS, CLASSES).requires_grad_(False)),
    ],
)
def test_a_model_that_ends_otherwise_is_refused(ending):
    x = torch.randn(3, INPUTS, generator=torch.Generator().manual_seed(0))
    with pytest.raises(InputError, match="linear layer"):
        LFighter("drop").check_model(ending, Multiclass(), x, torch.tensor([0, 1, 2]))


def test_a_linear_ending_passes_and_is_left_as_it_was():
    whole = module()
    before = [p.clone() for p in whole.parameters()]
    LFighter("drop").check_model(whole, Multiclass(), torch.randn(3, INPUTS), torch.zeros(3))
    assert all(torch.equal(a, b) for a, b in zip(before, whole.parameters(), strict=True))


def test_what_makes_no_sense_is_refused():
    with pytest.raises(InputError, match="action=keep"):
        LFighter("keep")
