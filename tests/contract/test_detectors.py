"""What every detector of conf/detector must keep, whatever it looks at."""

import io
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from fedexp.core.round_model import RoundModel
from fedexp.core.types import Updates
from fedexp.tasks.multiclass import Multiclass
from tests.support.composing import choices, config_for, part

N, D, ROUNDS, WARM_UP = 12, 300, 7, 3
INPUTS, CLASSES = 29, 10  # of the linear model that has D numbers


@pytest.fixture(params=choices("detector"))
def choice(request):
    return request.param


@pytest.fixture
def detector(choice):
    return detector_of(choice)


def detector_of(choice):
    keys = config_for(f"detector={choice}")["detector"]
    shorter = {"warm_up_rounds": WARM_UP, "iterations": 5, "samples": 50}
    return part("detector", choice, *(f"detector.{k}={v}" for k, v in shorter.items() if k in keys))


def learns_first(choice):
    return "warm_up_rounds" in config_for(f"detector={choice}")["detector"]


def updates(round, n=N, d=D):
    """Rows that agree in half of their length, and that shrink and turn over the rounds."""
    g = torch.Generator().manual_seed(round)
    shared = torch.randn(d, generator=g)
    matrix = (shared + torch.randn(n, d, generator=g)) * 0.7**round
    return Updates(
        matrix, tuple(range(n)), torch.ones(n, dtype=torch.float64), model=model_of(round)
    )


def model_of(round):
    """The linear model that rows of a round are changes of; it is moved by their mean."""
    params = torch.zeros(D)
    for before in range(round):
        g = torch.Generator().manual_seed(before)
        params += torch.randn(D, generator=g) * 0.7**before
    module = torch.nn.Linear(INPUTS, CLASSES)
    return RoundModel(params, module, Multiclass(), (INPUTS,))


def rng(round):
    return np.random.default_rng(round)


def run(detector, state, rounds):
    verdicts = []
    for round in rounds:
        verdict, state = detector(updates(round), state, rng(round))
        verdicts.append(verdict)
    return verdicts, state


@cache
def ran(choice, rounds):
    """The first rounds, gone through once: a detector learns for a while. Not to be written to."""
    detector = detector_of(choice)
    return run(detector, detector.init(D), range(rounds))


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_the_configs_were_found():
    found = set(choices("detector"))
    ours = {"none", "autoencoder", "consistency", "norm", "pca"}
    assert ours | {"deepsight", "flanders", "fldetector", "lfighter", "rflbat"} <= found


def test_verdicts_are_whole_and_trust_is_a_share(choice):
    verdicts, _ = ran(choice, ROUNDS)
    for verdict in verdicts:
        assert verdict.scores.shape == verdict.trust.shape == (N,)
        assert verdict.scores.dtype == verdict.trust.dtype == torch.float64
        assert verdict.flagged.shape == (N,)
        assert bool(((verdict.trust >= 0) & (verdict.trust <= 1)).all())
        assert bool((verdict.trust[~verdict.flagged] == 1).all())


def test_nobody_is_accused_before_there_is_a_threshold(choice):
    verdicts, _ = ran(choice, ROUNDS)
    for verdict in verdicts[: WARM_UP if learns_first(choice) else 0]:
        assert not verdict.flagged.any()
        assert verdict.scores.isnan().all()
        assert (verdict.trust == 1).all()


def test_afterwards_scores_are_numbers(choice):
    verdicts, _ = ran(choice, ROUNDS)
    for verdict in verdicts[WARM_UP:]:
        assert bool(verdict.scores.isfinite().all()) == (choice != "none")
        assert np.isfinite(verdict.threshold) == (choice != "none")


def test_rows_and_state_are_never_written_to(detector):
    state = detector.init(D)
    for round in range(ROUNDS):
        given, before = updates(round), {k: v.clone() for k, v in state.items()}
        matrix = given.matrix.clone()
        _, after = detector(given, state, rng(round))
        assert torch.equal(given.matrix, matrix)
        assert same(state, before)
        state = after


def test_the_state_is_no_view_of_the_buffer_that_the_next_round_reuses(detector):
    given = updates(0)
    _, state = detector(given, detector.init(D), rng(0))
    before = {k: v.clone() for k, v in state.items()}
    given.matrix.fill_(7.0)
    assert same(state, before)


def test_the_same_rounds_give_the_same_bits(choice, detector):
    first, a = ran(choice, ROUNDS)
    second, b = run(detector, detector.init(D), range(ROUNDS))
    assert same(a, b)
    for x, y in zip(first, second, strict=True):
        assert torch.equal(x.scores, y.scores) or bool(x.scores.isnan().all())


@pytest.mark.parametrize("saved_after", [1, WARM_UP, WARM_UP + 2])
def test_a_run_goes_on_from_a_checkpoint_with_the_same_bits(choice, detector, saved_after):
    through, final = ran(choice, ROUNDS)
    _, state = ran(choice, saved_after)
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    buffer.seek(0)
    rest, resumed = run(detector, torch.load(buffer, weights_only=True), range(saved_after, ROUNDS))
    assert same(resumed, final)
    torch.testing.assert_close(
        rest[-1].scores, through[-1].scores, rtol=0, atol=0, equal_nan=choice == "none"
    )


def test_the_order_of_the_clients_plays_no_part(choice, detector):
    _, state = ran(choice, WARM_UP)
    given = updates(WARM_UP)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(1))
    shuffled = replace(given, matrix=given.matrix[order], client_ids=tuple(order.tolist()))
    straight, _ = detector(given, state, rng(WARM_UP))
    turned, _ = detector(shuffled, state, rng(WARM_UP))
    torch.testing.assert_close(
        turned.scores, straight.scores[order], rtol=1e-4, atol=1e-4, equal_nan=choice == "none"
    )


@pytest.mark.parametrize("rows", ["one", "equal", "zero", "huge", "not finite", "few", "new"])
def test_odd_rounds_are_survived(choice, detector, rows):
    _, state = ran(choice, WARM_UP + 1)
    given = updates(WARM_UP + 1, n=1 if rows == "one" else 2 if rows == "few" else N)
    matrix, ids = given.matrix, given.client_ids
    if rows == "equal":
        matrix = matrix[:1].repeat(N, 1)
    elif rows == "zero":
        matrix = matrix * 0
    elif rows == "huge":
        matrix[0] = 3e38
    elif rows == "not finite":
        matrix[0] = torch.inf
        matrix[1] = torch.nan
    elif rows == "new":
        ids = tuple(range(100, 100 + N))
    odd = replace(given, matrix=matrix, client_ids=ids)
    verdict, after = detector(odd, state, rng(0))
    assert not verdict.scores.isinf().any()
    if rows in ("one", "equal", "zero"):
        assert verdict.flagged.sum() == 0  # nothing sets these rows apart
    assert all(tensor.isfinite().all() for tensor in after.values())
    again, _ = detector(updates(WARM_UP + 2), after, rng(1))
    assert again.trust.shape == (N,)
