"""Means and deviations of stored examples, against fractions and NumPy."""

import statistics
from fractions import Fraction

import numpy as np
import pytest
import torch

from fedexp.core import moments as module
from fedexp.core.moments import moments


def random_bytes(*shape):
    g = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=g)


def test_of_bytes_they_are_the_fractions_that_they_should_be():
    x = random_bytes(20, 3, 2, 2)
    mean, deviation = moments(x, 255)
    for c in range(3):
        values = [Fraction(int(v), 255) for v in x[:, c].flatten()]
        assert float(mean[c]) == pytest.approx(float(statistics.mean(values)), rel=1e-15)
        assert float(deviation[c]) == pytest.approx(float(statistics.stdev(values)), rel=1e-15)


@pytest.mark.parametrize("shape", [(50, 3, 4, 5), (50, 7), (50, 2, 6)])
@pytest.mark.parametrize("at_once", [1, 7, 4096])
def test_blocks_and_shapes_against_numpy(shape, at_once, monkeypatch):
    monkeypatch.setattr(module, "AT_ONCE", at_once)
    axes = (0, *range(2, len(shape)))
    stored = random_bytes(*shape)
    floats = 1e4 + torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    for x, divisor in ((stored, 16), (floats, 1)):
        expected = x.double().numpy() / divisor
        mean, deviation = moments(x, divisor)
        assert mean.dtype == deviation.dtype == torch.float64
        assert mean.numpy() == pytest.approx(expected.mean(axis=axes), rel=1e-14)
        assert deviation.numpy() == pytest.approx(expected.std(axis=axes, ddof=1), rel=1e-10)


def test_a_large_collection_does_not_overflow_and_loses_nothing():
    # In float32 the mean of so many equal numbers drifts.
    x = torch.full((300_000, 1, 5, 5), 250, dtype=torch.uint8)
    x[:150_000] = 254
    mean, deviation = moments(x, 1)
    assert mean.tolist() == [252.0]
    n = x.numel()
    assert deviation.item() == pytest.approx(2 * np.sqrt(n / (n - 1)), rel=1e-15)


@pytest.mark.parametrize("value", [0.1, 1e-30, 3e30])
def test_what_never_changes_deviates_by_exactly_nothing(value):
    assert moments(torch.full((1000, 2), value), 1)[1].tolist() == [0.0, 0.0]
    assert moments(torch.full((1000, 2), 77, dtype=torch.uint8), 255)[1].tolist() == [0.0, 0.0]


def test_one_example_has_no_deviation():
    assert moments(torch.ones(1, 3), 1)[1].tolist() == [0.0] * 3
    assert moments(torch.ones(1, 3, dtype=torch.uint8), 1)[1].tolist() == [0.0] * 3
