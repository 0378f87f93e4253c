"""Client-level DP: how far one client moves a release, and the clip norm that adapts."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm as normal

from fedexp.aggregation.mean import Mean
from fedexp.core.checks import InputError
from fedexp.privacy.client_level import update_noise_multiplier
from tests.support.mechanisms import LARGEST, client_level, released, rng, rows
from tests.support.updates import updates


def test_with_a_huge_clip_norm_and_no_noise_a_full_cohort_gets_its_plain_mean():
    sent = updates(rows(10))
    step, _ = released(client_level(clip_norm=1e30), sent)
    plain, _ = Mean("uniform")(sent, {}, rng())
    assert torch.equal(step, plain)


def test_a_release_by_hand():
    matrix = torch.tensor([[3.0, 4.0], [0.0, 0.5]])  # clipped to 1: [0.6, 0.8] and [0, 0.5]
    step, _ = released(client_level(expected_cohort=4), updates(matrix))
    torch.testing.assert_close(step, torch.tensor([0.6, 1.3]) / 4)


def test_the_divisor_is_the_expected_cohort_not_who_came():
    row = torch.tensor([[0.6, 0.8]])
    for n in (1, 2, 5, 20):
        step, _ = released(client_level(expected_cohort=5), updates(row.repeat(n, 1)))
        torch.testing.assert_close(step, row[0] * n / 5)


def test_an_empty_cohort_is_a_step_of_noise():
    nobody = updates(torch.empty(0, 7))
    step, _ = released(client_level(noise_multiplier=1.0), nobody)
    assert step.shape == (7,)
    assert (step != 0).all()
    step, _ = released(client_level(), nobody)
    assert step.tolist() == [0] * 7


@pytest.mark.parametrize(
    "attacker",
    [
        torch.full((1000,), 1e30),
        torch.full((1000,), -LARGEST),
        torch.full((1000,), float("nan")),
        torch.full((1000,), float("inf")),
        torch.zeros(1000),
        rows(1)[0],
    ],
)
@pytest.mark.parametrize("weight", [1.0, 1000.0, 1e12])
def test_a_client_that_comes_or_stays_away_moves_the_release_by_no_more_than_c_over_m(
    attacker, weight
):
    clip_norm, m = 0.5, 10
    privacy = client_level(clip_norm=clip_norm, expected_cohort=m)
    others = rows(9, seed=1)
    without, _ = released(privacy, updates(others, [1.0] * 9))
    sent = updates(torch.cat([others, attacker[None]]), [1.0] * 9 + [weight])
    with_it, _ = released(privacy, sent)
    rounding = 1e-6
    assert (with_it - without).norm() <= clip_norm / m * (1 + rounding)


def test_weights_by_examples_would_break_that_bound():
    # Ten clients of weights 1000, 1, ..., 1: without equal weights the first has 0.99 of the mean.
    matrix = torch.zeros(10, 4)
    matrix[0, 0] = 1.0
    sent = updates(matrix, [1000.0] + [1.0] * 9)
    weighted, _ = Mean("examples")(sent, {}, rng())
    assert weighted[0] == pytest.approx(1000 / 1009)
    step, _ = released(client_level(), sent)
    assert step[0] == pytest.approx(0.1)


def test_the_server_clips_again_what_a_liar_sends_and_leaves_the_honest_rows_their_bits():
    privacy = client_level(clip_norm=2.0)
    state = privacy.init(1000)
    honest = privacy.on_client(updates(rows(scale=3.0)), state, rng())
    received = privacy.on_receipt(honest, state)
    assert received.matrix is honest.matrix
    lie = honest.matrix.clone()
    lie[0] *= 1000
    received = privacy.on_receipt(honest.with_matrix(lie), state)
    assert float(received.matrix[0].double().norm()) <= 2.0
    assert torch.equal(received.matrix[1:], honest.matrix[1:])
    assert received.num_examples.tolist() == [1.0] * 9


def test_the_clip_norm_of_the_state_counts():
    privacy = client_level(clip_norm=1.0, noise_multiplier=1.0, expected_cohort=1)
    sent = updates(torch.tensor([[30.0, 40.0]]))
    state = {"clip_norm": torch.tensor(5.0, dtype=torch.float64)}
    assert privacy.on_client(sent, state, rng()).matrix.norm() == pytest.approx(5)
    assert privacy.on_receipt(sent, state).matrix.norm() == pytest.approx(5)
    nobody = updates(torch.empty(0, 50))
    large, after = released(privacy, nobody, state)
    small, _ = released(privacy, nobody)
    torch.testing.assert_close(large, 5 * small)  # noise in units of the clip norm
    assert after is state  # not adaptive: it stays


# Adaptive clipping
@pytest.mark.parametrize(
    ("z", "m", "z_delta"), [(1.0, 100, 1.005038), (0.5, 20, 0.516398), (2.0, 40, 2.309401)]
)
def test_what_the_count_leaves_of_the_noise_multiplier(z, m, z_delta):
    assert update_noise_multiplier(z, m / 20) == pytest.approx(z_delta, abs=5e-7)
    both = z_delta**-2 + (2 * m / 20) ** -2  # together they cost what z alone costs
    assert both**-0.5 == pytest.approx(z, abs=1e-6)


def test_a_count_that_costs_everything_is_refused():
    with pytest.raises(InputError, match=r"noise_multiplier=1\.0: .*below 2 x count_noise = 1"):
        client_level(adaptive=True, noise_multiplier=1.0, expected_cohort=10)
    with pytest.raises(InputError, match="noise_multiplier"):
        client_level(adaptive=True, noise_multiplier=0.1, count_noise=0.0)
    client_level(adaptive=True, noise_multiplier=0.999, expected_cohort=10)
    client_level(adaptive=False, noise_multiplier=1.0, expected_cohort=10)
    client_level(adaptive=True, noise_multiplier=0.0, count_noise=0.0)


@pytest.mark.parametrize(
    ("norms", "m", "gamma", "share"),
    [
        ([0.5, 2.0, 3.0, 0.1], 4, 0.9, 0.5),
        ([0.5, 2.0, 0.1], 4, 0.5, (2 - 1.5) / 4 + 0.5),  # one of four stayed away
        ([0.5, 2.0, 0.1], 3, 0.5, 2 / 3),
        ([5.0, 2.0, 7.0], 3, 0.5, 0.0),
        ([0.5, 0.0, 0.7], 3, 0.2, 5 / 6),  # a row of zeros counts half: as if nobody was there
        ([], 3, 0.5, 0.5),
    ],
)
def test_the_clip_norm_follows_the_formula(norms, m, gamma, share):
    privacy = client_level(
        adaptive=True, expected_cohort=m, target_quantile=gamma, count_noise=0.0, clip_norm=1.0
    )
    matrix = torch.tensor(norms)[:, None] * torch.tensor([[0.6, -0.8]])
    _, state = released(privacy, updates(matrix))
    assert float(state["clip_norm"]) == pytest.approx(math.exp(-0.2 * (share - gamma)))
    assert state["clip_norm"].dtype == torch.float64


@pytest.mark.parametrize("norm", [0.0, 0.5, 9.0, math.nan])
def test_a_client_moves_the_count_by_half_whether_it_is_away_or_sends_zeros(norm):
    """What the noise on the count is made for, with both kinds of neighbours: 1 would be twice."""
    privacy = client_level(
        adaptive=True, expected_cohort=10, count_noise=0.0, noise_multiplier=0.0, clip_norm=1.0
    )

    def count(first):
        matrix = torch.cat([first, 0.5 * torch.eye(9, 4)])
        state = released(privacy, updates(matrix))[1]
        return -10 * math.log(float(state["clip_norm"])) / 0.2

    with_it = count(norm * torch.eye(1, 4))
    for neighbour in (torch.empty(0, 4), torch.zeros(1, 4)):
        assert abs(with_it - count(neighbour)) <= 0.5 + 1e-9


@pytest.mark.parametrize("start", [0.003, 2000.0])
@pytest.mark.parametrize("gamma", [0.5, 0.8])
def test_the_clip_norm_finds_the_quantile_from_far_below_and_far_above(start, gamma):
    m, d = 100, 5
    privacy = client_level(
        clip_norm=start,
        noise_multiplier=1.0,
        expected_cohort=m,
        adaptive=True,
        target_quantile=gamma,
    )
    state, late = privacy.init(d), []
    for r in range(250):
        g = rng(r)
        directions = g.standard_normal((m, d))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        norms = np.exp(1 + 0.5 * g.standard_normal(m))  # log-normal, median e
        matrix = torch.from_numpy(directions * norms[:, None]).float()
        sent = privacy.on_client(updates(matrix), state, g)
        _, state = released(privacy, sent, state, seed=r)
        if r >= 200:
            late.append(float(state["clip_norm"]))
    truth = math.exp(1 + 0.5 * normal.ppf(gamma))
    assert np.mean(late) == pytest.approx(truth, rel=0.05)
