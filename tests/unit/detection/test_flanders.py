"""FLANDERS against the regressions with all matrices written out."""

import numpy as np
import pytest
import torch

from fedexp.core.checks import InputError
from fedexp.core.rng import generator
from fedexp.core.round_model import RoundModel
from fedexp.core.types import Updates
from fedexp.detection.flanders import Flanders, drawn, forecast
from fedexp.tasks.multiclass import Multiclass

D, N = 14, 6


def detector(**changes):
    given = {"assumed_malicious": 2, "window": 3, "coordinates": 500, "alpha": 1.0, "beta": 0.5}
    return Flanders(**{**given, "iterations": 10, "action": "drop", "seed": 0, **changes})


def federation(rounds, wild=(), there=lambda r: range(N)):
    """(model before the round, clients, updates): clients go on as they went before."""
    g = np.random.default_rng(0)
    w, ways = g.normal(size=D), g.normal(size=(N, D))
    for r in range(rounds):
        clients = tuple(there(r))
        rows = 0.3 * ways[list(clients)] + 0.01 * g.normal(size=(len(clients), D))
        for row, client in enumerate(clients):
            if client in wild:
                rows[row] = 3 * g.normal(size=D)
        yield w, clients, rows
        w = w + rows.mean(axis=0)


def updates(w, clients, rows):
    model = RoundModel(torch.tensor(w).float(), torch.nn.Linear(1, 1), Multiclass(), (1,))
    examples = torch.ones(len(clients), dtype=torch.float64)
    return Updates(torch.tensor(rows).float(), clients, examples, model=model)


def run(found, rounds):
    state, verdicts = found.init(D), []
    for one in rounds:
        verdict, state = found(updates(*one), state, generator(0, "test"))
        verdicts.append(verdict)
    return verdicts, state


def naive_forecast(past, alpha, beta, iterations):
    n, s = past[0].shape
    b = np.eye(s)
    for _ in range(iterations):
        top, bottom = np.zeros((n, n)), np.zeros((n, n))
        for t in range(1, len(past)):
            top += past[t] @ b @ past[t - 1].T
            bottom += past[t - 1] @ b.T @ b @ past[t - 1].T
        a = top @ np.linalg.inv(bottom + alpha * np.eye(n))
        top, bottom = np.zeros((s, s)), np.zeros((s, s))
        for t in range(1, len(past)):
            top += past[t].T @ a @ past[t - 1]
            bottom += past[t - 1].T @ a.T @ a @ past[t - 1]
        b = top @ np.linalg.inv(bottom + beta * np.eye(s))
    return a @ past[-1] @ b.T


def test_the_forecast_is_that_of_the_matrices_written_out():
    past = np.random.default_rng(0).uniform(size=(4, 5, 9))
    ours = forecast(torch.tensor(past), 1.0, 0.5, 7)
    np.testing.assert_allclose(ours.numpy(), naive_forecast(list(past), 1.0, 0.5, 7), rtol=1e-8)


def test_the_scores_are_distances_from_it_and_the_largest_are_flagged():
    rounds = list(federation(5))
    verdicts, _ = run(detector(action="report", assumed_malicious=0), rounds)
    assert all(v.scores.isnan().all() for v in verdicts[:2])
    local = [w + rows for w, _, rows in rounds]
    past = local[1:4]
    low, high = np.min(past), np.max(past)
    stretched = [(x - low) / (high - low) for x in past]
    expected = naive_forecast(stretched, 1.0, 0.5, 10)
    scores = np.square((local[4] - low) / (high - low) - expected).sum(axis=1)
    np.testing.assert_allclose(verdicts[4].scores.numpy(), scores, rtol=1e-4)
    flagging, _ = run(detector(action="report"), rounds)
    largest = sorted(np.argsort(flagging[4].scores.numpy())[-2:])
    assert flagging[4].flagged.nonzero().flatten().tolist() == largest


def test_whoever_does_something_else_every_round_is_dropped():
    verdicts, _ = run(detector(), federation(6, wild=(1, 4)))
    for verdict in verdicts[2:]:
        assert verdict.flagged.nonzero().flatten().tolist() == [1, 4]
        assert (verdict.trust == 0).tolist() == verdict.flagged.tolist()


def test_who_was_flagged_or_away_has_the_next_model_in_its_place():
    rounds = list(federation(4, wild=(1,), there=lambda r: range(N) if r != 2 else range(N - 1)))
    _, state = run(detector(assumed_malicious=1), rounds[:3])
    assert state["there"][:, 1].tolist() == [True, True, False]  # flagged in the third round
    assert state["there"][:, N - 1].tolist() == [True, True, False]  # away in it


def test_what_is_older_than_the_window_is_forgotten():
    rounds = federation(6, there=lambda r: range(N) if r == 0 else range(1, N))
    _, state = run(detector(assumed_malicious=0), rounds)
    assert state["clients"].tolist() == list(range(1, N))
    assert state["models"].shape == (3, N - 1, D)


def test_nobody_is_flagged_where_nobody_is_assumed():
    verdicts, _ = run(detector(assumed_malicious=0), federation(4, wild=(1,)))
    assert not any(verdict.flagged.any() for verdict in verdicts)


def test_coordinates_are_drawn_once_and_never_twice():
    chosen = drawn(1000, 50, seed=3)
    assert torch.equal(chosen, drawn(1000, 50, seed=3))
    assert len(chosen.unique()) == 50
    assert drawn(10, 50, seed=3).tolist() == list(range(10))


@pytest.mark.parametrize(
    "wrong",
    [
        {"assumed_malicious": -1},
        {"window": 1},
        {"coordinates": 0},
        {"alpha": 0},
        {"beta": -1.0},
        {"iterations": 0},
        {"action": "x"},
        {"seed": -1},
    ],
)
def test_what_makes_no_sense_is_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        detector(**wrong)
