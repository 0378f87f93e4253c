import numpy as np
import pytest
import torch

from fedexp.core.checks import InputError
from fedexp.core.examples import Split
from fedexp.partition.assign import (
    assign,
    assign_classes,
    check_enough,
    log_dirichlet,
    near_equal_sizes,
    proportions,
)
from fedexp.tasks.multiclass import Multiclass

TASK = Multiclass()


def split(labels):
    return Split(torch.zeros(len(labels), 1, 2, 2), torch.tensor(labels))


@pytest.mark.parametrize(("total", "parts"), [(0, 1), (7, 7), (10, 3), (60_000, 7919)])
def test_near_equal_sizes_add_up_and_differ_by_at_most_one(total, parts):
    sizes = near_equal_sizes(total, parts)
    assert sizes.shape == (parts,)
    assert sizes.sum() == total
    assert np.ptp(sizes) <= 1


def test_assign_sorts_rows_leaves_out_minus_one_and_names_int64():
    partition = assign(split([0] * 6), np.array([2, 0, -1, 1, 0, 2]), 3)
    assert [shard.tolist() for shard in partition.shards] == [[1, 4], [3], [0, 5]]
    assert all(shard.dtype == np.int64 for shard in partition.shards)


@pytest.mark.parametrize("owner", [[0, 0, 2], [1, 2, 2], [0, 1, 1]])
def test_assign_refuses_a_client_that_holds_nothing(owner):
    with pytest.raises(ValueError, match="holds nothing"):
        assign(split([0, 0, 0]), np.array(owner), 3)


def test_assign_classes_gives_the_counts_asked_for_also_when_labels_have_gaps():
    train = split([7, 3, 3, 7, 3, 3, 7])
    counts = np.array([[1, 2], [2, 0]])  # columns: label 3, label 7
    partition = assign_classes(train, counts, np.random.default_rng(0))
    assert partition.label_counts(8, TASK)[:, [3, 7]].tolist() == counts.tolist()


def test_assign_classes_chooses_the_rows_at_random():
    four = split([0] * 4)
    first = [
        assign_classes(four, np.array([[1], [2]]), np.random.default_rng(seed)).shards[0][0]
        for seed in range(60)
    ]
    assert set(first) == {0, 1, 2, 3}


def test_too_many_clients_and_too_large_min_size_are_told_with_the_numbers():
    with pytest.raises(InputError, match=r"n_clients=4: .* there are 3: use at most 3 clients"):
        check_enough(split([0, 0, 0]), 4)
    with pytest.raises(InputError, match=r"min_size=3: 2 clients would need 6 .* are 5: .* most 2"):
        check_enough(split([0] * 5), 2, min_size=3)
    with pytest.raises(InputError, match="n_clients=0"):
        check_enough(split([0]), 0)
    check_enough(split([0] * 6), 2, min_size=3)


def test_log_dirichlet_has_the_moments_of_the_dirichlet_law():
    a = np.array([0.2, 0.5, 3.0])
    draws = proportions(log_dirichlet(a, 200_000, np.random.default_rng(0)))
    mean = a / a.sum()
    variance = mean * (1 - mean) / (a.sum() + 1)
    assert draws.mean(axis=0) == pytest.approx(mean, rel=0.01)
    assert draws.var(axis=0) == pytest.approx(variance, rel=0.02)


@pytest.mark.parametrize("alpha", [5e-324, 1e-9, 1e300, 1.7e308])
def test_log_dirichlet_stays_finite_at_the_ends(alpha):
    shares = proportions(log_dirichlet(np.full(4, alpha), 100, np.random.default_rng(0)))
    assert np.isfinite(shares).all()
    assert shares.sum(axis=1) == pytest.approx(1)
    expected_largest = 1.0 if alpha < 1 else 0.25
    assert shares.max(axis=1) == pytest.approx(expected_largest)
