"""Gaussian noise by Box and Muller: the distribution, its ends, and one stream read in order."""

import math

import numpy as np
import torch
from scipy import stats

from fedexp.privacy.noise import CHUNK, add_noise, gaussian

ROUNDING = {"rtol": 2e-6, "atol": 3e-6}  # of float32: the angle's, times the radius


class Shares:
    """Hands out what it was given, as a generator of uniform numbers: lengths, then angles."""

    def __init__(self, lengths, angles):
        self.lengths, self.angles = np.array(lengths), np.array(angles, dtype=np.float32)

    def random(self, n, dtype=np.float64):
        shares = self.angles if dtype is np.float32 else self.lengths
        assert n == len(shares)
        return shares.copy()


def test_the_ends_are_finite_and_beyond_what_24_bits_reach():
    ends, angles = [0.0, 1 - 2**-53, 1 - 2**-53, 1 - 2**-40], [0.3, 0.0, 0.5, 0.25]
    drawn = gaussian(Shares(ends, angles))(8)
    largest, of_40_bits = (math.sqrt(2 * bits * math.log(2)) for bits in (53, 40))
    expected = [0, largest, -largest, 0, 0, 0, 0, of_40_bits]
    np.testing.assert_allclose(drawn, expected, **ROUNDING)


def test_every_pair_is_what_the_formula_makes_of_it():
    rng = np.random.default_rng(3)
    u, v = rng.random(10_000), rng.random(10_000, dtype=np.float32)
    radius = np.sqrt(-2 * np.log1p(-u))
    angle = 2 * np.pi * v.astype(np.float64)
    expected = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
    # A radius near 0 is that of 1 - u to 24 bits.
    near = np.concatenate([radius, radius]) < 0.01
    drawn = gaussian(Shares(u, v))(20_000)
    np.testing.assert_allclose(drawn[~near], expected[~near], rtol=1e-4, atol=3e-6)
    np.testing.assert_allclose(drawn[near], expected[near], atol=4e-4)


def test_the_two_of_a_pair_are_independent():
    one, other = np.split(gaussian(np.random.default_rng(4))(400_000).astype(np.float64), 2)
    for f in (lambda z: z, np.square, np.abs):
        assert abs(np.corrcoef(f(one), f(other))[0, 1]) < 0.01


def test_the_draws_are_standard_normal():
    drawn = gaussian(np.random.default_rng(5))(400_000)
    assert stats.kstest(drawn, "norm").pvalue > 0.01
    for beyond in (2.0, 3.0, 4.0):
        for side in (drawn, -drawn):
            expected = len(drawn) * stats.norm.sf(beyond)
            assert abs((side > beyond).sum() - expected) < 4 * math.sqrt(expected)


def test_the_same_questions_have_the_same_answers_and_an_odd_one_wastes_a_draw():
    draw, again, rest = (gaussian(np.random.default_rng(7)) for _ in range(3))
    first = [draw(n) for n in (3, 30, 969)]
    for n, drawn in zip((3, 30, 969), first, strict=True):
        np.testing.assert_array_equal(again(n), drawn)
    np.testing.assert_array_equal(rest(4)[:3], first[0])
    np.testing.assert_array_equal(rest(30), first[1])


def test_noise_has_the_scale_and_what_was_there_stays_below_it():
    vector = torch.full((CHUNK + 10,), 3.0)
    add_noise(vector, 0.5, gaussian(np.random.default_rng(1)))
    draw = gaussian(np.random.default_rng(1))
    drawn = np.concatenate([draw(CHUNK), draw(10)])
    torch.testing.assert_close(vector, torch.from_numpy(3 + 0.5 * drawn))


def test_no_scale_draws_nothing():
    def draw(n):
        raise AssertionError("drawn")

    vector = torch.ones(3)
    add_noise(vector, 0, draw)
    assert vector.tolist() == [1, 1, 1]
