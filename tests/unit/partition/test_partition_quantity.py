import numpy as np
import pytest
import torch

from fedexp.core.checks import InputError
from fedexp.core.examples import Split
from fedexp.partition.quantity import Quantity, sizes_by_weight


def split(n):
    return Split(torch.zeros(n, 1, 2, 2), torch.zeros(n, dtype=torch.int64))


def sizes(quantity, n, n_clients, seed=0):
    shards = quantity(split(n), n_clients, np.random.default_rng(seed)).shards
    return np.array([len(shard) for shard in shards])


@pytest.mark.parametrize(
    ("weights", "total", "min_size", "expected"),
    [
        ([6, 3, 2], 11, 1, [6, 3, 2]),
        ([1, 1, 1], 10, 1, [4, 3, 3]),  # equal remainders: the first
        ([1, 1, 8], 15, 1, [2, 1, 12]),  # shares 1.5, 1.5, 12
        ([1, 2, 7], 20, 4, [4, 4, 12]),  # raising the first leaves 16: 3.6 and 12.4; then 12
        ([0, 0, 1], 9, 2, [2, 2, 5]),
        ([1, 1, 1], 12, 4, [4, 4, 4]),
        ([1, 5, 9], 12, 4, [4, 4, 4]),
        ([19] * 20 + [620], 1000, 20, [20] * 20 + [600]),  # a little short is short
    ],
)
def test_sizes_by_weight_by_hand(weights, total, min_size, expected):
    assert sizes_by_weight(np.array(weights, dtype=float), total, min_size).tolist() == expected


def test_power_law_sizes_by_hand():
    # rank^-1: 1 + 1/2 + 1/3 = 11/6, so 66 rows are 36, 18 and 12.
    quantity = Quantity("power_law", sigma=1.0, exponent=1.0, min_size=1)
    orders = {tuple(sizes(quantity, 66, 3, seed)) for seed in range(40)}
    assert {tuple(sorted(order)) for order in orders} == {(12, 18, 36)}
    assert len(orders) == 6  # ranks are dealt at random


def test_lognormal_sizes_have_the_deviation_asked_for():
    logs = np.log(sizes(Quantity("lognormal", 0.5, 1.0, 1), 4_000_000, 4000))
    assert logs.std() == pytest.approx(0.5, rel=0.05)
    skewness = ((logs - logs.mean()) ** 3).mean() / logs.std() ** 3
    assert abs(skewness) < 0.15


@pytest.mark.parametrize("distribution", ["lognormal", "power_law"])
@pytest.mark.parametrize("spread", [0.0, 1.0, 10.0, 100.0])
@pytest.mark.parametrize("min_size", [1, 13, 50])
def test_min_size_holds_and_all_rows_are_dealt(distribution, spread, min_size):
    got = sizes(Quantity(distribution, spread, spread, min_size), 1000, 20)
    assert got.sum() == 1000
    assert got.min() >= min_size
    if spread == 0:
        assert (got == 50).all()


def test_refusals_name_the_argument():
    with pytest.raises(InputError, match="distribution=log-normal: did you mean lognormal"):
        Quantity("log-normal", 1.0, 1.0, 1)
    for bad in (-0.1, 101, float("nan"), float("inf")):
        with pytest.raises(InputError, match="sigma="):
            Quantity("lognormal", bad, 1.0, 1)
        with pytest.raises(InputError, match="exponent="):
            Quantity("power_law", 1.0, bad, 1)
    with pytest.raises(InputError, match="min_size=0"):
        Quantity("lognormal", 1.0, 1.0, 0)
    with pytest.raises(InputError, match="min_size=6: 2 clients would need 12"):
        Quantity("lognormal", 1.0, 1.0, 6)(split(11), 2, np.random.default_rng(0))
