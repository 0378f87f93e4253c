"""FLDetector against loops typed from algorithms 1 to 3 of Zhang et al. 2022."""

import numpy as np
import pytest
import torch

from fedexp.core.checks import InputError
from fedexp.core.rng import generator
from fedexp.core.round_model import RoundModel
from fedexp.core.types import Updates
from fedexp.detection.fldetector import FLDetector
from fedexp.detection.lbfgs import hessian_times
from fedexp.tasks.multiclass import Multiclass
from tests.support.composing import config_for
from tests.support.refusing import refusal

D, N = 12, 8


def detector(**changes):
    given = {"window": 3, "warm_up_rounds": 5, "most_clusters": 4, "references": 10}
    return FLDetector(**{**given, "sketch_size": None, "action": "drop", "seed": 0, **changes})


def federation(rounds, noisy=(), seed=0, noise=0.02, there=lambda r: range(N)):
    """(model before the round, clients, their gradients) of gradient descent on quadratics."""
    g = np.random.default_rng(seed)
    curvature = np.linspace(0.1, 1.5, D)
    targets = g.normal(size=(N, D))
    w = 3 * g.normal(size=D)
    for r in range(rounds):
        clients = tuple(there(r))
        gradients = np.stack([curvature * (w - targets[c]) for c in clients])
        gradients += noise * g.normal(size=gradients.shape)
        for row, client in enumerate(clients):
            if client in noisy:
                gradients[row] += g.normal(size=D)
        yield w, clients, gradients
        w = w - 0.3 * gradients.mean(axis=0)


def updates(w, clients, gradients):
    params = torch.tensor(w, dtype=torch.float32)
    model = RoundModel(params, torch.nn.Linear(1, 1), Multiclass(), (1,))
    matrix = torch.tensor(-0.3 * gradients, dtype=torch.float32)
    return Updates(matrix, clients, torch.ones(len(clients), dtype=torch.float64), model=model)


def run(found, rounds):
    state, verdicts = found.init(D), []
    for one in rounds:
        verdict, state = found(updates(*one), state, generator(0, "test"))
        verdicts.append(verdict)
    return verdicts, state


def dense_hessian(steps, changes):
    """B of BFGS after the updates, pair by pair, from B_0 = s I."""
    s, y = steps[-1], changes[-1]
    b = (y @ s) / (s @ s) * np.eye(len(s))
    for s, y in zip(steps, changes, strict=True):
        b = b - np.outer(b @ s, b @ s) / (s @ b @ s) + np.outer(y, y) / (y @ s)
    return b


def naive(rounds, window):
    """Scores of every round, clients all there: their g is in the unit of a step of the model."""
    w, g_local, records, found = [], [], [], []
    for model, _, gradients in rounds:
        w.append(model)
        local = 0.3 * gradients
        distances = None
        if len(w) >= 3:
            steps = [w[j] - w[j - 1] for j in range(1, len(w) - 1)][-window:]
            g = [-(w[j + 1] - w[j]) for j in range(len(w) - 1)]
            changes = [g[j] - g[j - 1] for j in range(1, len(g))][-window:]
            hessian = dense_hessian(steps, changes)
            expected = [g_local[-1][k] + hessian @ (w[-1] - w[-2]) for k in range(N)]
            distances = np.array([np.linalg.norm(local[k] - expected[k]) for k in range(N)])
            records.append(distances / distances.sum())
        g_local.append(local)
        found.append(np.mean(records[-window:], axis=0) if records else None)
    return found


def test_the_hessian_is_that_of_bfgs_pair_by_pair():
    draw = np.random.default_rng(0)
    steps = draw.normal(size=(3, D))
    changes = steps * np.linspace(0.5, 2, D)
    v = draw.normal(size=D)
    ours = hessian_times(*(torch.tensor(x) for x in (steps, changes, v)))
    np.testing.assert_allclose(ours.numpy(), dense_hessian(steps, changes) @ v, rtol=1e-8)


def test_the_scores_are_the_papers():
    rounds = list(federation(9, noisy=(2,)))
    verdicts, _ = run(detector(), rounds)
    expected = naive(rounds, window=3)
    for verdict, scores in zip(verdicts[5:], expected[5:], strict=True):
        shares = verdict.scores / verdict.scores.sum()
        np.testing.assert_allclose(shares.numpy(), scores, rtol=1e-3)


def test_who_does_what_its_past_does_not_say_is_flagged():
    verdicts, _ = run(detector(), federation(9, noisy=(2, 5)))
    for verdict in verdicts[:5]:
        assert verdict.scores.isnan().all()
    for verdict in verdicts[5:]:
        assert verdict.flagged.nonzero().flatten().tolist() == [2, 5]
        assert (verdict.trust == 0).tolist() == verdict.flagged.tolist()


def test_a_client_that_was_away_is_held_to_the_model_that_it_knew():
    rounds = list(federation(5, there=lambda r: range(1, N) if r == 3 else range(N)))
    verdicts, _ = run(detector(window=1, warm_up_rounds=2), rounds)
    w = [model for model, _, _ in rounds]
    local = [dict(zip(clients, 0.3 * g, strict=True)) for _, clients, g in rounds]
    hessian = dense_hessian([w[3] - w[2]], [-(w[4] - w[3]) + (w[3] - w[2])])
    expected = [local[2][0] + hessian @ (w[4] - w[2])]
    expected += [local[3][k] + hessian @ (w[4] - w[3]) for k in range(1, N)]
    away = np.array([np.linalg.norm(local[4][k] - expected[k]) for k in range(N)])
    np.testing.assert_allclose(verdicts[4].scores.numpy(), away / away.mean(), rtol=1e-3)


def test_what_is_older_than_the_window_is_forgotten():
    rounds = federation(9, there=lambda r: range(N) if r == 0 else range(1, N))
    _, state = run(detector(), rounds)
    assert state["clients"].tolist() == list(range(1, N))
    assert len(state["models"]) == 5


def test_a_model_that_stays_is_one_model():
    rounds = list(federation(4))
    _, once = run(detector(), rounds)
    _, twice = run(detector(), [*rounds, rounds[-1]])
    assert torch.equal(once["models"], twice["models"])
    assert twice["rounds"] == once["rounds"] + 1


def test_a_sketch_does_nearly_as_well():
    verdicts, state = run(detector(sketch_size=8), federation(9, noisy=(2, 5)))
    assert state["sent"].shape == (N, 8)
    assert verdicts[-1].flagged.nonzero().flatten().tolist() == [2, 5]


def test_a_channel_of_sums_is_refused():
    said = refusal(
        config_for("detector=fldetector", "channel=secure_aggregation", "channel.groups=2")
    )
    assert "judges a client by what it sent before" in said


@pytest.mark.parametrize(
    "wrong",
    [
        {"window": 0},
        {"warm_up_rounds": 1},
        {"most_clusters": 0},
        {"references": 0},
        {"sketch_size": 0},
        {"action": "x"},
        {"seed": -1},
    ],
)
def test_what_makes_no_sense_is_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        detector(**wrong)
