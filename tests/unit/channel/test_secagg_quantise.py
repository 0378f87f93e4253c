"""Floats to whole numbers and back."""

import numpy as np
import pytest

from fedexp.channel.quantise import Quantiser
from fedexp.core.checks import InputError


def rng(seed=0):
    return np.random.default_rng(seed)


def encoded(quantiser, values, seed=0):
    return quantiser.encode(np.asarray(values, dtype=np.float32), 3, rng(seed))


def test_levels_by_hand():
    quantiser = Quantiser(bits=4, value_range=7.0)  # -7, -6, ..., 7
    assert quantiser.step == 1.0
    got = encoded(quantiser, [-7, -1, 0, 3, 7, 7.5, -1e30])
    assert got.values.tolist() == [-7, -1, 0, 3, 7, 7, -7]
    assert got.clipped == 2


def test_a_value_between_two_levels_becomes_either_in_proportion():
    got = encoded(Quantiser(4, 7.0), np.full(40_000, 2.25)).values
    assert set(got.tolist()) == {2, 3}
    assert np.mean(got == 3) == pytest.approx(0.25, abs=0.01)
    got = encoded(Quantiser(4, 7.0), np.full(40_000, -2.25)).values
    assert np.mean(got == -3) == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("bits", [2, 8, 20, 32])
def test_the_error_is_below_a_step_and_without_bias(bits):
    quantiser = Quantiser(bits, 0.5)
    row = rng(1).uniform(-0.5, 0.5, 20_000).astype(np.float32)
    values = encoded(quantiser, row).values
    error = values * quantiser.step - row
    assert np.abs(error).max() < quantiser.step * (1 + 1e-9)
    assert abs(error.mean()) < 4 * quantiser.step / np.sqrt(12 * len(row) / 2)
    assert np.abs(values).max() <= quantiser.largest


def test_the_ends_of_the_range_stay_in_it():
    quantiser = Quantiser(32, 1.0)
    got = encoded(quantiser, np.repeat(np.float32([1, -1]), 50_000))
    assert set(got.values.tolist()) == {quantiser.largest, -quantiser.largest}
    assert got.clipped == 0


def test_the_mean_comes_back():
    quantiser = Quantiser(20, 1.0)
    rows = rng(2).normal(0, 0.1, (5, 1000)).astype(np.float32)
    weights = [1, 2, 3, 4, 5]
    total = sum(w * encoded(quantiser, row).values for w, row in zip(weights, rows, strict=True))
    mean = quantiser.decode(total, sum(weights))
    assert mean.dtype == np.float32
    assert np.abs(mean - np.average(rows, axis=0, weights=weights)).max() < quantiser.step


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_inf_are_refused(bad):
    with pytest.raises(InputError, match="1 coordinates that are NaN or Inf"):
        encoded(Quantiser(20, 1.0), [0, bad, 0])


@pytest.mark.parametrize(
    ("bits", "value_range", "message"),
    [(1, 1.0, "bits=1"), (33, 1.0, "bits=33"), (8, 0.0, "value_range=0"), (8, np.inf, "inf")],
)
def test_settings_are_checked(bits, value_range, message):
    with pytest.raises(InputError, match=message):
        Quantiser(bits, value_range)
