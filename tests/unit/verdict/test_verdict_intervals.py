"""Intervals against textbook cases, and how often they hold the truth."""

import numpy as np
import pytest
from scipy.stats import norm

from fedexp.verdict.intervals import difference, resampled, share


def test_one_example_a_patient_is_wilsons_interval():
    from scipy.stats import binomtest

    right = np.array([1.0] * 30 + [0.0] * 10)
    expected = binomtest(30, 40).proportion_ci(method="wilson")
    assert share(right, np.arange(40))[1:] == pytest.approx(tuple(expected), abs=3e-3)  # of n - 1


def test_images_of_one_patient_count_once():
    right = np.array([1.0] * 30 + [0.0] * 10)
    alone, twice = (
        share(right, np.arange(40)),
        share(np.repeat(right, 2), np.repeat(np.arange(40), 2)),
    )
    assert twice[1:] == pytest.approx(alone[1:], abs=1e-9)


def test_a_single_patient_says_nothing():
    assert share(np.ones(5), np.zeros(5)) == (1.0, 0.0, 1.0)
    assert difference(np.ones(5), np.zeros(5), np.zeros(5)) == (1.0, -1.0, 1.0)


def test_the_difference_is_agresti_and_mins():
    """Half a pair more in every cell, then Wald's interval: typed from the paper."""
    n11, n12, n21, n22 = 44, 3, 10, 3
    ours = np.array([1.0] * (n11 + n12) + [0.0] * (n21 + n22))
    theirs = np.array([1.0] * n11 + [0.0] * n12 + [1.0] * n21 + [0.0] * n22)
    low, high = difference(ours, theirs, np.arange(60))[1:]
    b, c, n = n12 + 0.5, n21 + 0.5, 62
    se = np.sqrt((b + c) - (b - c) ** 2 / n) / n
    assert (low + high) / 2 == pytest.approx((b - c) / n, abs=2e-3)
    assert (high - low) / 2 == pytest.approx(1.96 * se, rel=0.03)  # of n - 1


@pytest.mark.parametrize(
    ("patients", "images", "p"), [(20, 1, 0.8), (60, 2, 0.9), (100, 3, 0.7), (40, 1, 0.95)]
)
def test_they_hold_the_truth_in_95_of_100(patients, images, p):
    rng = np.random.default_rng(patients)
    border, hit, trials = norm.ppf(p) * np.sqrt(2), 0, 600
    whom = np.repeat(np.arange(patients), images)
    for _ in range(trials):
        ill = np.repeat(rng.normal(size=patients), images) + rng.normal(size=patients * images)
        low, high = share((ill < border).astype(float), whom)[1:]
        hit += low <= p <= high
    assert 0.925 <= hit / trials <= 0.98  # 95 % +- 2, and the trials' own doubt of 0.9


@pytest.mark.slow
def test_all_of_them_hold_the_truth_in_95_of_100_plus_or_minus_2():
    rng = np.random.default_rng(0)
    for patients, images, p in [(20, 3, 0.8), (100, 2, 0.9), (200, 3, 0.7), (30, 3, 0.5)]:
        whom = np.repeat(np.arange(patients), images)
        hits, trials = np.zeros(2), 4000
        for _ in range(trials):
            common = np.repeat(rng.normal(size=patients), images)
            own, other = rng.normal(size=(2, patients * images))
            ours = (common + own < norm.ppf(p) * np.sqrt(2)).astype(float)
            mixed = common + 0.5 * own + 0.75**0.5 * other
            theirs = (mixed < norm.ppf(0.7) * np.sqrt(2)).astype(float)
            low, high = share(ours, whom)[1:]
            hits[0] += low <= p <= high
            low, high = difference(ours, theirs, whom)[1:]
            hits[1] += low <= p - 0.7 <= high
        assert ((hits / trials > 0.93) & (hits / trials < 0.975)).all(), (patients, hits / trials)


def test_resampling_draws_patients():
    rng = np.random.default_rng(0)
    values = np.repeat(np.array([0.0, 1.0] * 25), 4)
    mean = lambda w: {"mean": w @ values / w.sum(axis=1)}  # noqa: E731
    clustered = resampled(mean, np.repeat(np.arange(50), 4), rng)["mean"]
    single = resampled(mean, np.arange(200), rng)["mean"]
    assert clustered.value == single.value == 0.5
    assert clustered.high - clustered.low == pytest.approx(2 * (single.high - single.low), rel=0.15)


def test_of_one_patient_there_is_no_interval():
    found = resampled(lambda w: {"n": w.sum(axis=1)}, np.zeros(3), np.random.default_rng(0))["n"]
    assert found.value == 3
    assert np.isnan(found.low)
