"""Skellam noise: its distribution, its sensitivity, its price."""

import math

import numpy as np
import pytest
from scipy import stats

from fedexp.channel.skellam import Skellam
from fedexp.core.checks import InputError

D = 21_840


def rng(seed=0):
    return np.random.default_rng(seed)


def skellam(scale, noise_multiplier=1.0, clip_norm=1.0):
    return Skellam(clip_norm, noise_multiplier, scale)


def summed_noise(mechanism, clients, d=20_000, least=None):
    return sum(mechanism.noise_share(d, least or clients, rng(seed)) for seed in range(clients))


def p_value(noise, variance):
    """Chi-square of whole-number noise against Skellam(variance / 2, variance / 2)."""
    law = stats.skellam(variance / 2, variance / 2)
    reach = int(2.5 * math.sqrt(variance))
    counts = [np.sum(noise < -reach)] + [np.sum(noise == k) for k in range(-reach, reach + 1)]
    chances = [law.cdf(-reach - 1), *law.pmf(np.arange(-reach, reach + 1))]
    counts.append(len(noise) - sum(counts))
    chances.append(1 - sum(chances))
    return stats.chisquare(counts, np.array(chances) * len(noise)).pvalue


def test_the_sum_of_shares_is_skellam_at_its_scale_and_no_other():
    mechanism = skellam(scale=8.0, noise_multiplier=0.75)
    assert mechanism.variance == 36.0
    noise = summed_noise(mechanism, 5)
    assert noise.dtype == np.int64
    assert p_value(noise, 36.0) > 1e-3
    assert p_value(noise, 36.0 * (2 / 3) ** 2) < 1e-12
    assert p_value(noise, 36.0 * (3 / 2) ** 2) < 1e-12


def test_at_large_scales_the_sum_is_nearly_gaussian():
    mechanism = skellam(scale=2.0**16, noise_multiplier=2.0)
    noise = summed_noise(mechanism, 7) / 2**17
    assert stats.kstest(noise, "norm").pvalue > 1e-3
    assert stats.kstest(noise * 2 / 3, "norm").pvalue < 1e-12
    assert stats.kstest(noise * 3 / 2, "norm").pvalue < 1e-12


def test_moments():
    mechanism = skellam(scale=3.0)  # variance 9, excess kurtosis 1 / 9
    noise = summed_noise(mechanism, 3, d=400_000)
    assert noise.mean() == pytest.approx(0, abs=4 * 3 / math.sqrt(len(noise)))
    assert noise.var() == pytest.approx(9, rel=0.02)
    assert stats.skew(noise) == pytest.approx(0, abs=0.02)
    assert stats.kurtosis(noise) == pytest.approx(1 / 9, abs=0.04)


def test_the_threshold_leaves_the_full_variance_and_more_survivors_more():
    mechanism = skellam(scale=8.0)
    assert p_value(summed_noise(mechanism, 4, least=4), 64.0) > 1e-3
    assert p_value(summed_noise(mechanism, 6, least=4), 64.0 * 6 / 4) > 1e-3
    assert p_value(summed_noise(mechanism, 4, least=6), 64.0) < 1e-12  # sized for n: too little


@pytest.mark.parametrize("scale", [0.5, 4.0, 256.0])
@pytest.mark.parametrize("d", [1, 10, 5000])
def test_rounded_rows_never_exceed_the_sensitivity(scale, d):
    mechanism = Skellam(clip_norm=2.0, noise_multiplier=1e-9, scale=scale)  # as good as no noise
    for seed in range(20):
        row = rng(seed).normal(0, 10, d).astype(np.float32)
        encoded = mechanism.encode(row, 3, rng(seed))
        assert np.linalg.norm(encoded.values) <= mechanism.l2_sensitivity(d)
        assert encoded.clipped == (d if np.linalg.norm(row) > 2 else 0)


def test_rows_come_back_cut_to_the_norm():
    mechanism = Skellam(clip_norm=1.0, noise_multiplier=1e-9, scale=2.0**20)
    row = np.float32([3.0, 4.0])
    mean = mechanism.decode(mechanism.encode(row, 3, rng()).values, 1)
    assert mean.tolist() == pytest.approx([0.6, 0.8], abs=1e-5)
    short = np.float32([0.3, 0.4])
    encoded = mechanism.encode(short, 3, rng())
    assert encoded.clipped == 0
    assert mechanism.decode(2 * encoded.values, 2).tolist() == pytest.approx([0.3, 0.4], abs=1e-5)


def test_the_ring_has_room_for_the_sum_and_its_noise():
    mechanism = skellam(scale=100.0)
    # 10 x 100 in one coordinate (and what rounding adds), 6 deviations of noise of 10 shares of 7.
    expected = 10 * mechanism.l2_sensitivity(1) + 6 * 100 * math.sqrt(10 / 7)
    assert mechanism.largest_sum(10, 7, 1) == math.ceil(expected)
    assert mechanism.largest_sum(10, 7, 1) >= 1000 + 6 * 100 * math.sqrt(10 / 7)


# The price. Known answers from an independent calculation, 100 rounds at delta 1e-5.


@pytest.mark.parametrize(
    ("scale", "epsilon"), [(2.0**8, 118.96), (2.0**12, 110.184), (2.0**16, 110.128)]
)
def test_epsilon_of_the_known_answers(scale, epsilon):
    assert skellam(scale).epsilon(D, 100, 1e-5) == pytest.approx(epsilon, abs=0.006)


def test_epsilon_is_that_of_the_gaussian_in_the_limit():
    orders = np.arange(2, 64)
    gaussian = 100 * orders / 2
    converted = (
        gaussian + np.log1p(-1 / orders) - (math.log(1e-5) + np.log(orders)) / (orders - 1)
    ).min()
    assert converted == pytest.approx(110.127, abs=0.001)
    fine = skellam(2.0**30).epsilon(D, 100, 1e-5)
    assert fine == pytest.approx(converted, abs=1e-3)
    assert fine >= converted


def test_rdp_by_hand():
    # s C = 2, d = 4, z = 1: mu = 4; D2^2 = min((2 + 2)^2, 4 + 1 + 1 x (2 + 1)) = 8;
    # D1 = min(8, 2 sqrt 8); order 2: 2 x 8 / 8 + min((3 x 8 + 6 D1) / 64, 3 D1 / 8).
    mechanism = skellam(2.0)
    assert mechanism.l2_sensitivity(4) ** 2 == pytest.approx(8)
    d1 = 2 * math.sqrt(8)
    expected = 2 + min((24 + 6 * d1) / 64, 3 * d1 / 8)
    assert mechanism.rdp(4)[0] == pytest.approx(expected)
    order_10 = 10 * 8 / 8 + min((19 * 8 + 6 * d1) / 64, 3 * d1 / 8)
    assert mechanism.rdp(4)[8] == pytest.approx(order_10)


def test_epsilon_is_monotone_and_nothing_costs_nothing():
    base = skellam(256.0).epsilon(D, 10, 1e-5)
    assert skellam(256.0).epsilon(D, 0, 1e-5) == 0
    assert skellam(256.0).epsilon(D, 11, 1e-5) > base
    assert skellam(256.0, noise_multiplier=1.1).epsilon(D, 10, 1e-5) < base
    assert skellam(256.0).epsilon(D, 10, 1e-6) > base
    assert skellam(512.0).epsilon(D, 10, 1e-5) < base
    # The clipping norm is a unit: what counts is how many whole numbers it holds.
    assert skellam(64.0, clip_norm=4.0).epsilon(D, 10, 1e-5) == pytest.approx(base)


@pytest.mark.parametrize("delta", [0, 1, -1e-5, 2])
def test_impossible_deltas_are_refused(delta):
    with pytest.raises(InputError, match="delta="):
        skellam(256.0).epsilon(D, 1, delta)


@pytest.mark.parametrize("field", ["clip_norm", "noise_multiplier", "scale"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_settings_are_checked(field, value):
    with pytest.raises(InputError, match=field):
        Skellam(**{"clip_norm": 1.0, "noise_multiplier": 1.0, "scale": 1.0, field: value})


@pytest.mark.parametrize("field", ["clip_norm", "noise_multiplier", "scale"])
def test_noise_that_never_is_a_whole_number_is_refused(field):
    # Its square is 0, which an account would divide by.
    with pytest.raises(InputError, match=r"noise_multiplier=.* is no noise in whole numbers"):
        Skellam(**{"clip_norm": 1.0, "noise_multiplier": 1.0, "scale": 1.0, field: 1e-300})


def test_nan_rows_are_refused():
    with pytest.raises(InputError, match="NaN or Inf"):
        skellam(256.0).encode(np.float32([0, np.nan]), 3, rng())
