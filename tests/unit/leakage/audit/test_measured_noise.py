"""The noise as it is seen: against scipy's distribution, on draws, and on a run of too little."""

import math

import numpy as np
import pytest
from scipy.stats import chi2

from fedexp.core.rng import generator
from fedexp.leakage.audit.measured_noise import MeasuredNoise, made_up


@pytest.mark.parametrize(("squares", "looks"), [(80.0, 100), (3.0, 2), (22_000.0, 22_500)])
def test_against_the_distribution(squares, looks):
    noise = MeasuredNoise(squares, looks, 0.025)
    assert noise.p_value == pytest.approx(chi2.cdf(squares, looks))
    assert noise.at_most == pytest.approx(math.sqrt(squares / chi2.ppf(0.025, looks)))
    assert noise.alarm == (noise.at_most < 1)


def test_honest_noise_raises_it_as_often_as_the_level_says_and_a_hundredth_less_always():
    def alarms(share):
        rng = generator(0, "test_measured_noise")
        return np.mean([made_up(share, 100_000, 0.05, rng).alarm for _ in range(1000)])

    assert 0.03 < alarms(1.0) < 0.07
    assert alarms(0.98) > 0.99
    assert alarms(1.02) == 0


def test_nothing_seen_says_nothing():
    noise = MeasuredNoise(0.0, 0, 0.05)
    assert (noise.alarm, noise.p_value, noise.at_most) == (False, 1.0, math.inf)
    assert math.isnan(noise.share)
