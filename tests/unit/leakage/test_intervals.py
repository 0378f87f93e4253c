"""Bootstrap and permutation intervals: exact cases, and how often they hold the truth."""

import math

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from fedexp.core.rng import generator
from fedexp.leakage.intervals import (
    Interval,
    mean_interval,
    paired_difference,
    permutation_interval,
    share_interval,
)


def rng(i=0):
    return generator(i, "test_intervals")


@pytest.mark.parametrize("value", [2.0, 0.1, -3.7])
def test_equal_values_have_an_interval_of_no_width(value):
    assert mean_interval([value] * 50, rng()) == (value, value, value)


def test_one_value_says_nothing_of_its_spread():
    mean, low, high = mean_interval([2.0], rng())
    assert mean == 2.0
    assert math.isnan(low)
    assert math.isnan(high)


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [1.0, float("inf")], [[1.0, 2.0]]])
def test_what_has_no_mean_is_refused(values):
    with pytest.raises(ValueError, match="finite"):
        mean_interval(values, rng())


def test_two_values_by_hand():
    # Resamples of {0, 2}: means 0, 1, 2 with chances 1/4, 1/2, 1/4.
    assert mean_interval([0.0, 2.0], rng()) == (1.0, 0.0, 2.0)
    assert mean_interval([0.0, 2.0], rng(), level=0.4) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(("k", "n"), [(0, 13), (50, 50), (1, 7), (30, 100), (0, 1)])
def test_shares_against_scipys_exact_interval(k, n):
    exact = binomtest(k, n).proportion_ci(0.95, "exact")
    share = share_interval([1.0] * k + [0.0] * (n - k))
    assert share == pytest.approx((k / n, exact.low, exact.high))
    if n > 1:
        assert mean_interval([1.0] * k + [0.0] * (n - k), rng()) == share


@pytest.mark.parametrize("share", [0.02, 0.05, 0.1, 0.5])
def test_an_interval_of_a_share_holds_it_also_of_few_targets(share):
    """Summed over all outcomes of 13 targets; the percentile bootstrap has 26 to 70 % here."""
    holding = sum(
        binom.pmf(k, 13, share)
        for k in range(14)
        if share_interval([1.0] * k + [0.0] * (13 - k)).holds(share)
    )
    assert holding >= 0.95


def test_images_of_one_observation_count_as_one():
    together = np.repeat(range(10), 8)  # ten sums of eight images, all or none of which come back
    values = np.repeat([1.0] * 3 + [0.0] * 7, 8)
    alone, grouped = share_interval(values), share_interval(values, observations=together)
    assert alone.high - alone.low < 0.25
    exact = share_interval([1.0] * 3 + [0.0] * 7)
    # As wide as ten targets' own, and a little wider by Student's t.
    assert 0.6 * exact.low < grouped.low < exact.low
    assert exact.high < grouped.high < exact.high + 0.1
    nothing = share_interval(np.zeros(80), observations=together)
    assert nothing.high > 0.3  # ten observations, not 80 targets: 0.04


def test_measurements_of_one_observation_are_resampled_together():
    together = np.repeat(range(40), 10)
    of_observations = rng(1).normal(size=40)
    values = np.repeat(of_observations, 10)
    grouped = mean_interval(values, rng(), observations=together)
    assert grouped == pytest.approx(mean_interval(of_observations, rng()), abs=1e-9)
    alone = mean_interval(values, rng())
    assert (grouped.high - grouped.low) > 2.5 * (alone.high - alone.low)
    one = mean_interval(values, rng(), observations=np.zeros(400))
    assert math.isnan(one.low)


def test_pairs_of_shares_are_not_told_apart_by_nothing():
    both = [0.0] * 13
    mean, low, high = paired_difference(both, both, rng())
    assert mean == 0
    assert low < -0.2
    assert high > 0.2
    ours, theirs = [1.0] * 20 + [0.0] * 30, [0.0] * 50
    mean, low, high = paired_difference(ours, theirs, rng())
    assert mean == pytest.approx(0.4)
    assert 0.1 < low < 0.3
    assert 0.5 < high < 0.6


def test_observations_need_as_many_values():
    with pytest.raises(ValueError, match="as many observations"):
        mean_interval([1.0, 2.0], rng(), observations=[1])


def test_against_the_normal_approximation():
    values = rng(1).normal(3.0, 2.0, size=400)
    mean, low, high = mean_interval(values, rng())
    half = 1.96 * values.std() / 20
    assert mean == pytest.approx(values.mean())
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=0.1 * half)


def test_it_holds_the_truth_about_as_often_as_it_says():
    held = sum(mean_interval(rng(i).normal(size=50), rng(1000 + i)).holds(0.0) for i in range(100))
    assert 86 <= held <= 99  # 95, give or take four deviations of 2.2, and never all


def test_the_same_stream_gives_the_same_interval():
    values = rng(2).normal(size=30)
    assert mean_interval(values, rng(7)) == mean_interval(values, rng(7))
    assert mean_interval(values, rng(7)) != mean_interval(values, rng(8))


def test_pairs_cancel_what_the_targets_have_in_common():
    hard = rng(3).normal(0, 10, size=50)
    a, b = hard + 1 + 0.01 * rng(4).normal(size=50), hard
    mean, low, high = paired_difference(a, b, rng())
    assert mean == pytest.approx(1, abs=0.01)
    assert 0.98 < low < high < 1.02
    assert paired_difference(b, a, rng()).mean == -mean


def test_pairs_need_partners():
    with pytest.raises(ValueError, match="as many of both"):
        paired_difference([1.0, 2.0], [1.0], rng())


def test_permutations_by_hand():
    null = np.linspace(-1, 1, 2001)  # quantiles -0.95 and 0.95
    assert permutation_interval(3.0, null) == pytest.approx((3.0, 2.05, 3.95))
    assert permutation_interval(0.94, null).holds(0)
    assert not permutation_interval(0.96, null).holds(0)
    assert not permutation_interval(-0.96, null).holds(0)


@pytest.mark.parametrize(
    ("interval", "held"),
    [
        (Interval(1.0, 0.5, 1.5), False),
        (Interval(0.2, -0.1, 0.5), True),
        (Interval(-1.0, -1.5, 0.0), True),
        (Interval(1.0, math.nan, math.nan), True),
    ],
)
def test_whether_an_interval_holds_nought(interval, held):
    assert interval.holds(0) is held
