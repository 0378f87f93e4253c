"""Gaussian noise by inversion: the distribution, its ends, and one stream read in order."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from fedexp.privacy.noise import CHUNK, add_noise, gaussian

LARGEST = 8.292361075813595  # sqrt(2) erfinv(1 - 2^-53) to 40 digits, rounded


class Shares:
    """Hands out what it was given, as a generator of uniform numbers."""

    def __init__(self, shares):
        self.shares = np.array(shares)

    def random(self, n):
        assert n == len(self.shares)
        return self.shares.copy()


def test_the_ends_are_finite_and_the_same_on_both_sides():
    drawn = gaussian(Shares([0.0, 1 - 2**-53]))(2)
    assert drawn == pytest.approx([-LARGEST, LARGEST], rel=1e-14)


def test_the_middle_is_never_zero_and_the_same_on_both_sides():
    drawn = gaussian(Shares([0.5 - 2**-53, 0.5]))(2)
    smallest = math.sqrt(math.pi / 2) * 2**-53  # the density at 0 is 1 / sqrt(2 pi)
    assert drawn == pytest.approx([-smallest, smallest], rel=1e-14)


def test_every_share_becomes_its_own_quantile():
    shares = np.random.default_rng(3).random(10_000)
    expected = stats.norm.ppf(shares + 2**-54)
    np.testing.assert_allclose(gaussian(Shares(shares))(10_000), expected, rtol=1e-9, atol=1e-12)


def test_the_draws_are_standard_normal():
    drawn = gaussian(np.random.default_rng(5))(400_000)
    assert stats.kstest(drawn, "norm").pvalue > 0.01
    for beyond in (2.0, 3.0, 4.0):
        for side in (drawn, -drawn):
            expected = len(drawn) * stats.norm.sf(beyond)
            assert abs((side > beyond).sum() - expected) < 4 * math.sqrt(expected)


def test_a_stream_is_read_in_order_however_much_is_asked_at_once():
    at_once = gaussian(np.random.default_rng(7))(1_000)
    draw = gaussian(np.random.default_rng(7))
    np.testing.assert_array_equal(np.concatenate([draw(1), draw(30), draw(969)]), at_once)


def test_noise_has_the_scale_and_what_was_there_stays_below_it():
    vector = torch.full((CHUNK + 10,), 3.0)
    add_noise(vector, 0.5, gaussian(np.random.default_rng(1)))
    drawn = gaussian(np.random.default_rng(1))(CHUNK + 10)
    torch.testing.assert_close(vector, torch.from_numpy(3 + 0.5 * drawn).float())


def test_no_scale_draws_nothing():
    def draw(n):
        raise AssertionError("drawn")

    vector = torch.ones(3)
    add_noise(vector, 0, draw)
    assert vector.tolist() == [1, 1, 1]
