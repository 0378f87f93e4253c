"""Rules and server optimisers against numbers worked out by hand."""

import math

import numpy as np
import pytest
import torch

from fedexp.aggregation.mean import Mean
from fedexp.aggregation.median import Median
from fedexp.aggregation.order_statistics import (
    _by_network,
    _by_numpy,
    added_up,
    mean_of_sorted,
)
from fedexp.aggregation.server_optimizers import SGD, Adagrad, Adam, Momentum, Yogi
from fedexp.aggregation.trimmed_mean import TrimmedMean
from fedexp.core.checks import InputError
from tests.support.updates import updates

RNG = None  # the rules here draw nothing


ROWS = [[1.0, -1.0, 10.0], [2.0, 5.0, 20.0], [6.0, 0.0, -90.0]]


def test_mean_weights_by_examples():
    step, _ = Mean("examples")(updates(ROWS, [1.0, 2.0, 1.0]), {}, RNG)
    assert step.tolist() == [2.75, 2.25, -10.0]


def test_mean_uniform():
    step, _ = Mean("uniform")(updates(ROWS, [1.0, 2.0, 1.0]), {}, RNG)
    torch.testing.assert_close(step, torch.tensor([3.0, 4 / 3, -20.0]))


def test_median_of_three():
    step, _ = Median(1)(updates(ROWS), {}, RNG)
    assert step.tolist() == [2.0, 0.0, 10.0]


def test_median_of_even_n_is_the_mean_of_the_middle_two():
    step, _ = Median(0)(updates([*ROWS, [4.0, 4.0, 4.0]]), {}, RNG)
    assert step.tolist() == [3.0, 2.0, 7.0]


def test_trimmed_mean_drops_f_on_each_side():
    rows = [[1.0], [100.0], [2.0], [-50.0], [6.0]]
    step, _ = TrimmedMean(1)(updates(rows), {}, RNG)
    assert step.tolist() == [3.0]


def test_trimmed_mean_without_liars_is_the_unweighted_mean():
    step, _ = TrimmedMean(0)(updates(ROWS, [1.0, 2.0, 1.0]), {}, RNG)
    torch.testing.assert_close(step, torch.tensor(ROWS).mean(0))


@pytest.mark.parametrize("rule", [Median, TrimmedMean])
def test_half_liars_are_refused_with_the_numbers(rule):
    with pytest.raises(InputError, match=r"assumed_malicious=2: needs more than 2 x 2.*but 4 are"):
        rule(2)(updates([[1.0]] * 4), {}, RNG)


@pytest.mark.parametrize("n", range(1, 41))
def test_every_order_statistic_against_numpy_sort(n):
    rng = np.random.default_rng(n)
    matrix = rng.normal(size=(n, 23)).astype(np.float32)
    matrix[rng.random(matrix.shape) < 0.2] = 0.5  # ties
    for low in range(0, n, max(1, n // 5)):
        high = min(n, low + 1 + n // 3)
        expected = np.sort(matrix.astype(np.float64), axis=0)[low:high].mean(axis=0)
        result = mean_of_sorted(torch.from_numpy(matrix), low, high)
        np.testing.assert_allclose(result.numpy(), expected, rtol=1e-6, atol=1e-6)


def test_chunks_meet_without_a_seam():
    matrix = torch.randn(129, 5003, generator=torch.Generator().manual_seed(0))
    expected = matrix.sort(dim=0).values[64]
    assert torch.equal(mean_of_sorted(matrix, 64, 65), expected)


def test_order_statistics_show_a_nan():
    matrix = torch.tensor([[1.0, math.nan], [2.0, 0.0], [3.0, 0.0]])
    result = mean_of_sorted(matrix, 1, 2)
    assert result[0] == 2.0
    assert result[1].isnan()


@pytest.mark.parametrize("n", [1, 2, 5, 12, 33])
def test_both_ways_to_sort_give_the_same_bits(n):
    # Or the machine's load at the first call would decide a bit of the result.
    rng = np.random.default_rng(n)
    matrix = torch.from_numpy(rng.normal(size=(n, 300)).astype(np.float32) * 3)
    matrix[:, :90] = matrix[:, :90].round() * -0.0  # zeros of both signs
    matrix[0, 90:120], matrix[-1, 100:150], matrix[n // 2, 140:160] = math.nan, math.inf, -math.inf
    for low, high in {((n - 1) // 2, n // 2 + 1), (n // 5, n - n // 5), (0, n), (0, 1)}:
        found = []
        for sort in (_by_numpy, _by_network):
            chunks = iter([slice(0, 170), slice(170, 300)])
            pieces = sort(matrix, low, high, chunks)
            found.append(torch.cat([added_up(values) / (high - low) for _, values in pieces]))
        assert torch.equal(found[0].isnan(), found[1].isnan())
        assert found[0][:90].view(torch.int32).tolist() == [0] * 90
        assert torch.equal(found[0].nan_to_num(7), found[1].nan_to_num(7))


W, STEP = torch.tensor([1.0]), torch.tensor([0.5])


def test_server_sgd():
    new, _ = SGD(2.0)(W, STEP, {})
    assert new.tolist() == [2.0]


def test_server_momentum_two_rounds():
    rule = Momentum(lr=1.0, beta=0.9)
    w, state = rule(W, STEP, rule.init(W))  # m = 0.5
    w, state = rule(w, STEP, state)  # m = 0.95
    assert w.item() == pytest.approx(1 + 0.5 + 0.95)


def test_server_adam_first_round():
    rule = Adam(lr=0.1, beta1=0.9, beta2=0.99, tau=0.01)
    w, _ = rule(W, STEP, rule.init(W))
    m, v = 0.1 * 0.5, 0.99 * 0.01**2 + 0.01 * 0.25
    assert w.item() == pytest.approx(1 + 0.1 * m / (math.sqrt(v) + 0.01), rel=1e-6)


def test_server_yogi_first_round():
    rule = Yogi(lr=0.1, beta1=0.9, beta2=0.99, tau=0.01)
    w, _ = rule(W, STEP, rule.init(W))
    v0 = 0.01**2
    v = v0 - 0.01 * 0.25 * np.sign(v0 - 0.25)
    assert w.item() == pytest.approx(1 + 0.1 * 0.05 / (math.sqrt(v) + 0.01), rel=1e-6)


def test_server_yogi_shrinks_a_large_second_moment():
    rule = Yogi(lr=0.1, beta1=0.0, beta2=0.9, tau=2.0)  # v0 = 4 > 0.25
    _, state = rule(W, STEP, rule.init(W))
    assert state["v"].item() == pytest.approx(4 - 0.1 * 0.25)


def test_server_adagrad_two_rounds():
    rule = Adagrad(lr=0.1, beta1=0.0, tau=0.01)
    w, state = rule(W, STEP, rule.init(W))
    w, state = rule(w, STEP, state)
    v1, v2 = 1e-4 + 0.25, 1e-4 + 0.5
    expected = 1 + 0.05 / (math.sqrt(v1) + 0.01) + 0.05 / (math.sqrt(v2) + 0.01)
    assert w.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("rule", [Adam, Yogi, Adagrad])
def test_a_first_moment_that_takes_in_no_step_is_refused(rule):
    others = {} if rule is Adagrad else {"beta2": 0.99}
    with pytest.raises(InputError, match=r"^beta1=1\.0: must be below 1"):
        rule(lr=0.1, beta1=1.0, tau=0.01, **others)
