"""The same bits on any number of cores, and every column once."""

import numpy as np
import pytest
import torch

from fedexp.aggregation.meamed import mean_around_median
from fedexp.aggregation.order_statistics import mean_of_sorted
from fedexp.aggregation.robust_learning_rate import net_votes
from fedexp.aggregation.weighted_order import weighted_median
from fedexp.core import columns
from fedexp.core.columns import added_over_columns, over_columns
from fedexp.core.geometry import centred_gram
from fedexp.core.norms import NUMBERS_TO_ADD_UP, gram, mixed, row_norms, scaled, weighted_sum


def on(monkeypatch, threads):
    monkeypatch.setattr(columns, "cores_to_spare", lambda: threads)


@pytest.mark.parametrize("shape", [(1, 1), (3, 0), (7, 5), (40, 20_000), (300, 4_001)])
@pytest.mark.parametrize("threads", [1, 3])
def test_every_column_once_and_in_order(monkeypatch, shape, threads):
    on(monkeypatch, threads)
    found = over_columns(lambda chunks: [range(10**6)[c] for c in chunks], torch.zeros(shape), 999)
    assert [i for band in found for chunk in band for i in chunk] == list(range(shape[1]))
    assert len(found) <= columns.BANDS


def test_sums_are_those_of_float64():
    rows = torch.randn(30, 50_000, generator=torch.Generator().manual_seed(0))
    exact = rows.double()
    total = added_over_columns(lambda c: rows[:, c].double().sum(dim=1), rows)
    np.testing.assert_allclose(total, exact.sum(dim=1), rtol=1e-12)
    np.testing.assert_allclose(row_norms(rows), exact.norm(dim=1), rtol=1e-6)


def test_products_of_more_rows_than_a_block():
    rows = torch.randn(300, 40, generator=torch.Generator().manual_seed(0))
    products = gram(rows)
    assert torch.equal(products, products.T)
    torch.testing.assert_close(products, rows.double() @ rows.double().T, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_weighted_sum_in_pieces_has_the_bits_of_one_product(monkeypatch, threads):
    on(monkeypatch, threads)
    g = torch.Generator().manual_seed(0)
    rows, weights = torch.randn(50, 100_003, generator=g), torch.rand(50, generator=g)
    assert rows.numel() > NUMBERS_TO_ADD_UP
    assert torch.equal(weighted_sum(weights, rows), weights @ rows)


def test_the_cores_do_not_change_a_bit(monkeypatch):
    n = 60
    rows = torch.randn(n, 20_000, generator=torch.Generator().manual_seed(0))
    shares = torch.full((n,), 1 / n, dtype=torch.float64)
    found = []
    for threads in (1, 2, 5):
        on(monkeypatch, threads)
        found.append(
            [
                row_norms(rows),
                gram(rows),
                centred_gram(rows),
                mean_of_sorted(rows, 29, 31),
                mean_around_median(rows, torch.arange(n), 40),
                weighted_median(rows, shares),
                net_votes(rows),
                scaled(rows, shares),
                mixed(rows, torch.ones(2, n)),
            ]
        )
    for others in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], others, strict=True))
    torch.testing.assert_close(mean_of_sorted(rows, 29, 31), rows.quantile(0.5, dim=0))
