"""The top of the spectrum, whichever library finds it."""

import pytest
import torch

from fedexp.core import spectrum
from fedexp.core.spectrum import top_eigenpair


def centred_products(n, d, seed=0):
    rows = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    rows -= rows.mean(dim=0)
    return rows @ rows.T


@pytest.mark.parametrize("small", [1, 100])
def test_both_libraries_find_the_same(monkeypatch, small):
    monkeypatch.setattr(spectrum, "SMALL", small)
    products = centred_products(60, 200)
    value, vector = top_eigenpair(products)
    values, vectors = torch.linalg.eigh(products)
    assert value == pytest.approx(float(values[-1]), rel=1e-12)
    assert abs(float(vector @ vectors[:, -1])) == pytest.approx(1, abs=1e-9)
    assert torch.equal(top_eigenpair(products)[1], vector)  # nothing is drawn


def test_rows_that_agree_have_no_spread(monkeypatch):
    monkeypatch.setattr(spectrum, "SMALL", 1)
    assert top_eigenpair(torch.zeros(5, 5, dtype=torch.float64))[0] == 0
