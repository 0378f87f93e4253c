"""DeepSight against loops typed from algorithms 1 to 3 of Rieger et al. 2022."""

import numpy as np
import pytest
import torch
from sklearn.cluster import HDBSCAN
from torch import nn

from fedexp.core.checks import InputError
from fedexp.core.rng import generator
from fedexp.core.round_model import RoundModel
from fedexp.core.types import Updates
from fedexp.detection.deepsight import DeepSight
from fedexp.tasks.multiclass import Multiclass

INPUTS, CLASSES = 7, 6
D = (INPUTS + 1) * CLASSES


def detector(**changes):
    given = {"samples": 50, "draws": 3, "min_cluster_size": 2, "suspicious_share": 0.3333}
    return DeepSight(**{**given, "action": "drop", **changes})


def rows(matrix, start):
    model = RoundModel(start, nn.Linear(INPUTS, CLASSES), Multiclass(), (INPUTS,))
    examples = torch.ones(len(matrix), dtype=torch.float64)
    return Updates(matrix, tuple(range(len(matrix))), examples, model=model)


def cohort(seed, n=12, poisoned=4):
    """Honest clients move all neurons; poisoned ones mostly one, all of them the same one."""
    g = torch.Generator().manual_seed(seed)
    start = 0.3 * torch.randn(D, generator=g)
    matrix = 0.5 * torch.randn(n, D, generator=g)
    matrix[:poisoned] *= 0.05
    pushed = matrix[:poisoned, : INPUTS * CLASSES].view(poisoned, CLASSES, INPUTS)
    pushed[:, 2] += 1
    matrix[:poisoned, INPUTS * CLASSES + 2] += 1
    return matrix, start


def clusters(distances):
    found = HDBSCAN(metric="precomputed", min_cluster_size=2, copy=True).fit_predict(distances)
    return [c if c >= 0 else f"row {i} alone" for i, c in enumerate(found)]


def distances_from(labels):
    return np.array([[0.0 if a == b else 1.0 for b in labels] for a in labels])


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def naive(matrix, start, rng, samples=50, draws=3, tau=1 / 3):
    """The rows that are accepted."""
    x, w, n = matrix.double().numpy(), start.double().numpy(), len(matrix)
    neups, exceedings = [], []
    for k in range(n):
        energies = []
        for i in range(CLASSES):
            weights = x[k, i * INPUTS : (i + 1) * INPUTS]
            energies.append(abs(x[k, CLASSES * INPUTS + i]) + sum(abs(v) for v in weights))
        squares = [e**2 for e in energies]
        neups.append([s / sum(squares) for s in squares])
        xi = max(0.01, 1 / CLASSES) * max(neups[-1])
        exceedings.append(sum(v > xi for v in neups[-1]))
    labels = [te <= np.median(exceedings) / 2 for te in exceedings]
    biases = x[:, CLASSES * INPUTS :]
    cosine = np.array(
        [[1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in biases] for a in biases]
    ).clip(0)
    np.fill_diagonal(cosine, 0)

    def euclidean(values):
        return np.array([[np.linalg.norm(np.subtract(a, b)) for b in values] for a in values])

    def answers(vector, inputs):
        weights = vector[: CLASSES * INPUTS].reshape(CLASSES, INPUTS)
        return softmax(inputs @ weights.T + vector[CLASSES * INPUTS :])

    by_answers = []
    for _ in range(draws):
        inputs = (rng.random((samples, INPUTS), dtype=np.float32) - 0.5) * np.sqrt(12)
        ddifs = []
        for k in range(n):
            ratios = answers(w + x[k], inputs) / answers(w, inputs)
            ddifs.append(ratios.sum(axis=0) / samples)
        by_answers.append(distances_from(clusters(euclidean(ddifs))))
    merged = np.mean(
        [
            np.mean(by_answers, axis=0),
            distances_from(clusters(euclidean(neups))),
            distances_from(clusters(cosine)),
        ],
        axis=0,
    )
    final = clusters(merged)
    accepted = []
    for k in range(n):
        members = [j for j in range(n) if final[j] == final[k]]
        if sum(labels[j] for j in members) / len(members) < tau:
            accepted.append(k)
    return accepted


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("poisoned", [0, 2, 4])
def test_the_rows_that_are_accepted_are_the_papers(seed, poisoned):
    matrix, start = cohort(seed, poisoned=poisoned)
    verdict, state = detector()(rows(matrix, start), {}, generator(seed, "test"))
    accepted = naive(matrix, start, generator(seed, "test"))
    assert [k for k in range(len(matrix)) if not verdict.flagged[k]] == accepted
    assert (verdict.trust == 0).tolist() == verdict.flagged.tolist()
    assert state == {}


def test_who_moves_one_neuron_alone_is_flagged():
    matrix, start = cohort(0)
    verdict, _ = detector()(rows(matrix, start), {}, generator(0, "test"))
    assert verdict.flagged.nonzero().flatten().tolist() == [0, 1, 2, 3]


def test_of_three_rows_nothing_is_said():
    matrix, start = cohort(0)
    verdict, _ = detector()(rows(matrix[:3], start), {}, generator(0, "test"))
    assert verdict.scores.isnan().all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"samples": 0},
        {"draws": 0},
        {"min_cluster_size": 1},
        {"suspicious_share": 1.5},
        {"action": "x"},
    ],
)
def test_what_makes_no_sense_is_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        detector(**wrong)


def test_a_model_that_ends_otherwise_is_refused():
    x = torch.randn(3, INPUTS)
    with pytest.raises(InputError, match="linear layer"):
        detector().check_model(nn.Linear(INPUTS, 2, bias=False), Multiclass(), x, x)
