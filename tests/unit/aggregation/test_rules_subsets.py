"""CAF, minimum-diameter averaging and SMEA.

Cases computed by hand, loops over all subsets or on the d x d covariance, and byzfl where its
approximations are exact or its choice is the only one.
"""

from itertools import combinations

import byzfl
import pytest
import torch

from fedexp.aggregation import mda, smea
from fedexp.aggregation.caf import CovarianceAgnosticFilter
from fedexp.aggregation.mda import MinimumDiameterAveraging, smallest_diameter
from fedexp.aggregation.smea import SmallestMaximumEigenvalueAveraging
from fedexp.core.checks import InputError
from fedexp.core.geometry import squared_distances
from tests.support.updates import updates

RNG = None  # the rules here draw nothing
SHAPES = [(3, 1, 2), (7, 1, 6), (8, 3, 20), (10, 4, 3), (12, 2, 60)]  # n, f, d


def column(*values):
    return torch.tensor(values, dtype=torch.float32)[:, None]


def random_rows(n, d, seed=0):
    rows = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    rows[1] += 3
    return rows


def on_a_line(n, seed=0):
    """Rows of rank one, among which a single subset has the smallest diameter."""
    along = random_rows(n, 1, seed)
    return along * torch.tensor([[1.0, -2.0, 0.5]])


def step_of(rule, rows):
    return rule(updates(rows), rule.init(rows.shape[1]), RNG)[0]


def covariance(rows, weights=None):
    """`[d, d]`, of rows in float64, and their mean."""
    weights = torch.ones(len(rows), dtype=torch.float64) if weights is None else weights
    mean = weights @ rows / weights.sum()
    away = rows - mean
    return (away.T * weights) @ away / weights.sum(), mean


# CAF


def naive_caf(rows, f):
    """Algorithm 2 of Allouah et al. on the covariance itself."""
    rows = rows.double()
    n = len(rows)
    weights = torch.ones(n, dtype=torch.float64)
    best, smallest = rows.mean(dim=0), float("inf")
    while float(weights.sum()) > n - 2 * f:
        matrix, mean = covariance(rows, weights)
        values, vectors = torch.linalg.eigh(matrix)
        if float(values[-1]) < smallest:
            best, smallest = mean, float(values[-1])
        tau = [float((row - mean) @ vectors[:, -1]) ** 2 for row in rows]
        largest = max(t for t, c in zip(tau, weights.tolist(), strict=True) if c > 0)
        for k in range(n):
            weights[k] *= max(0.0, 1 - tau[k] / largest)
    return best


def test_caf_by_hand():
    # n = 4, f = 1. Mean 3, variance 18.5 and tau 9, 4, 1, 36 leave the weights 27/36, 32/36, 35/36
    # and 0. They sum to 94/36 > 2: the mean is now (0 + 32 + 70) / 94, with variance
    # (32 + 140) / 94 - (102/94)^2 = 0.65; then tau of the first, (102/94)^2, is the largest.
    # What is left of 1 and 2 sums to less than 2: the second mean it is.
    step = step_of(CovarianceAgnosticFilter(1), column(0, 1, 2, 9))
    assert step.item() == pytest.approx(102 / 94)


@pytest.mark.parametrize(("n", "f", "d"), SHAPES)
@pytest.mark.parametrize("seed", range(3))
def test_caf_against_the_loop(n, f, d, seed):
    rows = random_rows(n, d, seed)
    step = step_of(CovarianceAgnosticFilter(f), rows)
    torch.testing.assert_close(step, naive_caf(rows, f).float(), rtol=1e-5, atol=1e-5)


def test_caf_is_byzfls_where_the_dropped_row_does_not_count_and_one_power_step_is_enough():
    # First all variance is along one axis, then, without the first row, along the other.
    rows = torch.zeros(9, 2)
    rows[0, 0] = 1e4
    rows[1:, 1] = torch.tensor([1.0, -2.0, 0.5, 3.0, -1.0, 0.0, 2.0, -0.5])
    step = step_of(CovarianceAgnosticFilter(1), rows)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = byzfl.CAF(1)(rows)
    torch.testing.assert_close(step, theirs, rtol=1e-5, atol=1e-5)
    assert abs(step[0]) < 1  # the row is gone


def test_a_row_long_dropped_does_not_hold_up_the_filter():
    # In float32 1 - tau / max tau would stay 1 for all others if the first row's tau counted.
    rows = random_rows(11, 1)
    rows[0], rows[1] = 1e6, 5e5
    step = step_of(CovarianceAgnosticFilter(2), rows)
    torch.testing.assert_close(step, naive_caf(rows, 2).float(), rtol=1e-5, atol=1e-5)
    assert abs(step.item()) < 2


def test_caf_without_liars_is_the_mean():
    rows = random_rows(5, 8)
    step = step_of(CovarianceAgnosticFilter(0), rows)
    torch.testing.assert_close(step, rows.mean(dim=0), rtol=1e-6, atol=1e-6)


# Minimum-diameter averaging


def naive_mda(rows, f):
    """Over all subsets: the smallest diameter, then the least sum of squared distances."""
    distances = squared_distances(rows)
    n = len(rows)

    def badness(subset):
        pairs = [float(distances[i, j]) for i, j in combinations(subset, 2)]
        return max(pairs, default=0.0), sum(pairs)

    return list(min(combinations(range(n), n - f), key=badness))


def test_mda_by_hand():
    rule = MinimumDiameterAveraging(1, 10)
    assert step_of(rule, column(0, 9, 1, 3)).item() == pytest.approx(4 / 3)


def test_mda_breaks_a_tie_of_diameters_by_the_sum_of_squares():
    # Without either end of the longest edge the other long one remains: 4. The left end is nearer.
    rows = torch.tensor([[0.0, -2.5], [0.0, 2.6], [-2.0, -0.1], [2.0, -0.1]])
    without_one = rows[[0, 2, 3]].mean(dim=0)
    for order in ([0, 1, 2, 3], [1, 0, 2, 3], [3, 2, 1, 0]):
        step = step_of(MinimumDiameterAveraging(1, 10), rows[order])
        torch.testing.assert_close(step, without_one)


@pytest.mark.parametrize(("n", "f", "d"), SHAPES)
@pytest.mark.parametrize("seed", range(5))
def test_mda_against_all_subsets(n, f, d, seed):
    rows = random_rows(n, d, seed)
    kept = smallest_diameter(squared_distances(rows), f)
    assert kept.nonzero().flatten().tolist() == naive_mda(rows, f)
    step = step_of(MinimumDiameterAveraging(f, 1000), rows)
    torch.testing.assert_close(step, rows[kept].mean(dim=0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("f", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(4))
def test_mda_is_byzfls_on_a_line_where_one_subset_is_smallest(f, seed):
    rows = on_a_line(10, seed)
    step = step_of(MinimumDiameterAveraging(f, 1000), rows)
    torch.testing.assert_close(step, byzfl.MDA(f)(rows), rtol=1e-5, atol=1e-5)


def test_mda_with_equal_rows_and_in_small_blocks(monkeypatch):
    rows = column(1, 1, 1, 1, 1, 7, 7)
    assert step_of(MinimumDiameterAveraging(2, 1000), rows).tolist() == [1.0]
    assert step_of(MinimumDiameterAveraging(3, 1000), rows).tolist() == [1.0]
    monkeypatch.setattr(mda, "BLOCK_NUMBERS", 1)
    rows = random_rows(9, 4)
    kept = smallest_diameter(squared_distances(rows), 3)
    assert kept.nonzero().flatten().tolist() == naive_mda(rows, 3)


def test_mda_refuses_too_many_subsets_with_the_numbers():
    rows = torch.zeros(21, 1)
    with pytest.raises(
        InputError, match=r"assumed_malicious=10: n=21 .* f=10 .* 1024 subsets .* max_subsets=1023"
    ):
        step_of(MinimumDiameterAveraging(10, 1023), rows)
    assert step_of(MinimumDiameterAveraging(10, 1024), rows).tolist() == [0.0]


# SMEA


def naive_smea(rows, f):
    rows = rows.double()
    n = len(rows)

    def top(subset):
        return float(torch.linalg.eigvalsh(covariance(rows[list(subset)])[0])[-1])

    return list(min(combinations(range(n), n - f), key=top))


def test_smea_by_hand():
    # Variances without one row: of 1, 3, 9 it is 11.6; 0, 3, 9: 14; 0, 1, 9: 16.2; 0, 1, 3: 1.6.
    rule = SmallestMaximumEigenvalueAveraging(1, 10)
    assert step_of(rule, column(0, 9, 1, 3)).item() == pytest.approx(4 / 3)


def test_smea_looks_at_the_worst_direction_and_not_at_all_of_them():
    rows = torch.tensor([[1.0, -4.0], [1.0, 3.0], [-3.0, 0.0], [2.0, 2.0], [-2.0, -1.0]])
    # Total variance is least without the first row, 6.75 to 8.94; the top eigenvalue without the
    # second, 4.72 to 6.26.
    step = step_of(SmallestMaximumEigenvalueAveraging(1, 10), rows)
    torch.testing.assert_close(step, rows[[0, 2, 3, 4]].mean(dim=0))


@pytest.mark.parametrize(("n", "f", "d"), SHAPES)
@pytest.mark.parametrize("seed", range(3))
def test_smea_against_all_covariances(n, f, d, seed):
    rows = random_rows(n, d, seed)
    step = step_of(SmallestMaximumEigenvalueAveraging(f, 1000), rows)
    expected = rows[naive_smea(rows, f)].mean(dim=0)
    torch.testing.assert_close(step, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("f", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(4))
def test_smea_is_byzfls_in_one_dimension_where_one_power_step_is_exact(f, seed):
    rows = random_rows(10, 1, seed)
    step = step_of(SmallestMaximumEigenvalueAveraging(f, 1000), rows)
    torch.testing.assert_close(step, byzfl.SMEA(f)(rows), rtol=1e-5, atol=1e-5)


def test_smea_in_small_blocks(monkeypatch):
    rows = random_rows(9, 4)
    whole = step_of(SmallestMaximumEigenvalueAveraging(3, 1000), rows)
    monkeypatch.setattr(smea, "BLOCK_NUMBERS", 36 * 5)
    assert torch.equal(step_of(SmallestMaximumEigenvalueAveraging(3, 1000), rows), whole)


def test_smea_refuses_too_many_subsets_with_the_numbers():
    with pytest.raises(
        InputError, match=r"assumed_malicious=10: n=50 .* C\(50, 10\)=10272278170 .*=200000"
    ):
        step_of(SmallestMaximumEigenvalueAveraging(10, 200_000), torch.zeros(50, 1))


@pytest.mark.parametrize(
    "rule",
    [
        CovarianceAgnosticFilter(3),
        MinimumDiameterAveraging(3, 1000),
        SmallestMaximumEigenvalueAveraging(3, 1000),
    ],
)
def test_half_liars_are_refused_and_equal_rows_are_followed(rule):
    with pytest.raises(InputError, match=r"assumed_malicious=3: .* 2 x 3 .* 6 are in"):
        step_of(rule, torch.zeros(6, 1))
    assert step_of(rule, torch.zeros(7, 1)).tolist() == [0.0]
    torch.testing.assert_close(step_of(rule, torch.full((7, 2), 0.1)), torch.full((2,), 0.1))
