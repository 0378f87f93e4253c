"""Bootstrap and permutation intervals: exact cases, and how often they hold the truth."""

import math

import numpy as np
import pytest

from fedexp.core.rng import generator
from fedexp.leakage.intervals import (
    Interval,
    mean_interval,
    paired_difference,
    permutation_interval,
)


def rng(i=0):
    return generator(i, "test_intervals")


@pytest.mark.parametrize("value", [0.0, 0.1, 1.0, -3.7])
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
    # Resamples of {0, 1}: means 0, 1/2, 1 with chances 1/4, 1/2, 1/4.
    assert mean_interval([0.0, 1.0], rng()) == (0.5, 0.0, 1.0)
    assert mean_interval([0.0, 1.0], rng(), level=0.4) == (0.5, 0.5, 0.5)


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
