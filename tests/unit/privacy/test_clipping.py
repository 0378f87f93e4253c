"""Clipping by hand, against the formula in float64, and where numbers end."""

import pytest
import torch

from fedexp.privacy.clipping import clip_rows, row_norms, within
from tests.support.mechanisms import BROKEN, LARGEST, rows


def test_clipping_by_hand():
    given = torch.tensor([[3.0, 4.0], [0.3, -0.4], [0.0, 0.0], [-6.0, 8.0]])
    l2 = torch.tensor([[1.5, 2.0], [0.3, -0.4], [0.0, 0.0], [-1.5, 2.0]])
    torch.testing.assert_close(clip_rows(given, 2.5), l2)
    l1 = torch.tensor([[3.0, 4.0], [0.3, -0.4], [0.0, 0.0], [-3.0, 4.0]])
    torch.testing.assert_close(clip_rows(given, 7.0, order=1), l1)
    assert row_norms(given).tolist() == pytest.approx([5, 0.5, 0, 10])
    assert row_norms(given, order=1).tolist() == pytest.approx([7, 0.7, 0, 14])


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("d", [1, 3, 1000, 40_000])  # the last one takes several chunks
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_clipping_against_the_formula_in_float64(order, d, scale):
    given = rows(d=d, scale=scale)
    norms = given.double().norm(p=order, dim=1)
    torch.testing.assert_close(row_norms(given, order), norms, rtol=1e-12, atol=0)
    bound = float(norms.median())
    expected = given.double() * (bound / norms).clamp(max=1)[:, None]
    clipped = clip_rows(given, bound, order)
    torch.testing.assert_close(clipped.double(), expected, rtol=1e-6, atol=1e-45)
    assert torch.equal(clipped[norms <= bound], given[norms <= bound])
    assert (norms > bound).any()


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("d", [1, 3, 1000, 40_000])
def test_no_rounding_takes_a_row_over_the_bound_so_clipping_twice_changes_nothing(order, d):
    given = rows(n=50, d=d, scale=1e3)
    for bound in (1.0, 0.1, 1 / 3, 7e-5, 12345.678):
        clipped = clip_rows(given, bound, order)
        assert (clipped.double().norm(p=order, dim=1) <= bound).all()
        assert clip_rows(clipped, bound, order) is clipped  # a copy would mean: one was longer


def test_a_row_as_long_as_the_bound_is_left_alone():
    given = torch.tensor([[3.0, 4.0]])
    assert clip_rows(given, 5.0) is given
    assert clip_rows(given, 7.0, order=1) is given
    assert clip_rows(torch.empty(0, 3), 1.0).shape == (0, 3)


@pytest.mark.parametrize("order", [1, 2])
def test_the_largest_numbers_are_clipped_without_overflow(order):
    given = torch.full((2, 20_000), LARGEST)
    given[1] = 0
    given[1, 0] = -1e30
    clipped = clip_rows(given, 1.0, order)
    assert clipped.double().norm(p=order, dim=1).tolist() == pytest.approx([1, 1], rel=1e-6)
    assert clipped[1, 0] == pytest.approx(-1)
    assert (clipped[0] == clipped[0, 0]).all()


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("value", BROKEN)
def test_a_row_without_a_length_becomes_zeros_and_touches_no_other(order, value):
    given = rows(3, d=20_000)
    given[1, 17_000] = value
    clipped = clip_rows(given, 1.0, order)
    assert not clipped[1].any()
    assert torch.equal(clipped[::2], clip_rows(given[::2], 1.0, order))


def test_who_was_clipped_can_be_seen_in_the_clipped_row():
    given = rows(400, d=100)
    bound = float(given.norm(dim=1).quantile(0.3))
    short = within(clip_rows(given, bound), bound)
    assert torch.equal(short, given.norm(dim=1) < bound)
    assert short.sum() == 120
    assert within(torch.zeros(2, 3), bound).all()
