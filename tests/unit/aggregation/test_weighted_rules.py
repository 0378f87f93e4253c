"""Rules that weigh: by hand, against naive loops, and against the plain rules on copies of rows.

A site of weight 3 is three clients who send the same: a weighted rule on whole weights is the plain
rule on as many copies, with as many liars as the heaviest sites have copies.
"""

import numpy as np
import pytest
import torch

from fedexp.aggregation.centred_clipping import CentredClipping
from fedexp.aggregation.geometric_median import GeometricMedian
from fedexp.aggregation.krum import Krum, krum_scores
from fedexp.aggregation.mean import Mean
from fedexp.aggregation.median import Median
from fedexp.aggregation.plain import aggregate
from fedexp.aggregation.trimmed_mean import TrimmedMean
from fedexp.aggregation.weighted_centred_clipping import WeightedCentredClipping
from fedexp.aggregation.weighted_geometric_median import WeightedGeometricMedian
from fedexp.aggregation.weighted_krum import WeightedKrum, weighted_krum_scores
from fedexp.aggregation.weighted_median import WeightedMedian
from fedexp.aggregation.weighted_order import weighted_median, weighted_trimmed_mean
from fedexp.aggregation.weighted_trimmed_mean import WeightedTrimmedMean
from fedexp.core.checks import InputError
from fedexp.core.geometry import squared_distances
from fedexp.core.shares import capped_shares, held_by, masses_up_to
from fedexp.pre_aggregation.nnm import NearestNeighbourMixing
from fedexp.pre_aggregation.weighted_nnm import WeightedNearestNeighbourMixing
from tests.support.updates import updates

WEIGHTS = [1, 1, 2, 1, 3, 1, 2, 1, 1, 2]  # of 15; the heaviest three hold 7, the heaviest two 5
WEISZFELD = (1000, 1e-9, 1e-6)

# Name -> the weighted rule with f, and the plain one with f, with a cap that does not bind.
PAIRS = {
    "median": (lambda f: WeightedMedian(f, 1.0), Median),
    "trimmed_mean": (lambda f: WeightedTrimmedMean(f, 1.0), TrimmedMean),
    "geometric_median": (
        lambda f: WeightedGeometricMedian(f, 1.0, *WEISZFELD),
        lambda f: GeometricMedian(f, "uniform", *WEISZFELD),
    ),
    "krum": (lambda f: WeightedKrum(f, 1.0, 1), lambda f: Krum(f, 1)),
    "multi_krum": (lambda f: WeightedKrum(f, 1.0, None), lambda f: Krum(f, None)),
    "centred_clipping": (
        lambda f: WeightedCentredClipping(f, 1.0, None, 3),
        lambda f: CentredClipping(f, None, 3),
    ),
    "centred_clipping, a radius": (
        lambda f: WeightedCentredClipping(f, 1.0, 2.0, 2),
        lambda f: CentredClipping(f, 2.0, 2),
    ),
}
each_pair = pytest.mark.parametrize(("weighted", "plain"), PAIRS.values(), ids=PAIRS)


def rows(n=10, d=7, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def copies(matrix, weights):
    return matrix.repeat_interleave(torch.tensor(weights), dim=0)


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def naive_shares(weights, cap):
    """c by bisection, with sum_k min(cap, c w_k) = 1."""
    low, high = 0.0, 1e6
    for _ in range(300):
        c = (low + high) / 2
        low, high = (c, high) if sum(min(cap, c * w) for w in weights) < 1 else (low, c)
    return [min(cap, c * w) for w in weights]


@pytest.mark.parametrize("cap", [0.11, 0.15, 0.2, 0.5, 1.0])
def test_shares_are_capped_by_water_filling(cap):
    weights = [190, 17834, 5000, 1200, 300, 9000, 640, 2500, 410, 7000]
    shares = capped_shares(torch.tensor(weights), cap)
    torch.testing.assert_close(
        shares, torch.tensor(naive_shares(weights, cap), dtype=torch.float64), rtol=1e-9, atol=0
    )
    assert float(shares.sum()) == pytest.approx(1, abs=1e-12)
    assert float(shares.max()) <= cap * (1 + 1e-9)


def test_a_cap_that_nobody_can_keep_leaves_all_alike():
    assert capped_shares(torch.tensor([1.0, 5.0, 9.0]), 0.2).tolist() == [1 / 3] * 3
    # 1 / n exactly is kept by equal shares alone.
    assert capped_shares(torch.tensor([1.0, 9.0]), 0.5).tolist() == [0.5, 0.5]


def test_who_has_no_weight_gets_no_share():
    assert capped_shares(torch.tensor([0.0, 1.0, 3.0]), 0.5).tolist() == [0, 0.5, 0.5]
    assert capped_shares(torch.zeros(4), 1.0).tolist() == [0.25] * 4


def test_what_rounding_leaves_of_the_next_row_does_not_count():
    tenths = torch.full((10,), 0.1, dtype=torch.float64)
    for k in range(11):
        assert int((masses_up_to(tenths, 1 - k * 0.1) > 0).sum()) == 10 - k


@each_pair
@pytest.mark.parametrize("n", [9, 10])
def test_equal_weights_are_the_plain_rule(weighted, plain, n):
    given = rows(n)
    close(aggregate(weighted(2), given), aggregate(plain(2), given))


@each_pair
def test_whole_weights_are_the_plain_rule_on_copies(weighted, plain):
    given = rows()
    liars = sum(sorted(WEIGHTS)[-2:])  # of the copies
    step = aggregate(weighted(2), given, examples=WEIGHTS)
    close(step, aggregate(plain(liars), copies(given, WEIGHTS)))


def test_krums_scores_are_those_of_the_copies():
    given, shares = rows(), capped_shares(torch.tensor(WEIGHTS), 1.0)
    scores = weighted_krum_scores(squared_distances(given), shares, held_by(shares, 2))
    of_copies = krum_scores(squared_distances(copies(given, WEIGHTS)), 5)
    torch.testing.assert_close(copies(scores, WEIGHTS), of_copies, rtol=1e-6, atol=0)


def test_mixing_is_the_plain_one_on_copies():
    given = rows()
    mixed = WeightedNearestNeighbourMixing(2, 1.0)(updates(given, WEIGHTS), None).matrix
    of_copies = NearestNeighbourMixing(5)(updates(copies(given, WEIGHTS)), None).matrix
    close(copies(mixed, WEIGHTS), of_copies)
    equal = WeightedNearestNeighbourMixing(3, 1.0)(updates(given, [4] * 10), None).matrix
    close(equal, NearestNeighbourMixing(3)(updates(given), None).matrix)


@each_pair
def test_a_client_of_weight_two_may_be_two_of_weight_one(weighted, plain):
    # The third, of weight 2; the heaviest, by which f is measured, stay whole.
    given, weights = rows(), [1, 1, 2, 1, 3, 1, 3, 1, 1, 2]
    split = torch.cat([given[:3], given[2:]])
    step = aggregate(weighted(2), given, examples=weights)
    close(step, aggregate(weighted(2), split, examples=[1, 1, 1, 1, 1, 3, 1, 3, 1, 1, 2]))


def naive_median(column, shares):
    """All z that minimise sum_k s_k |x_k - z| lie between these two values of the column."""
    costs = [sum(s * abs(x - z) for x, s in zip(column, shares, strict=True)) for z in column]
    best = [z for z, cost in zip(column, costs, strict=True) if cost <= min(costs) + 1e-9]
    return (min(best) + max(best)) / 2


def naive_trimmed_mean(column, shares, trimmed):
    total, below = 0.0, 0.0
    for x, s in sorted(zip(column, shares, strict=True)):
        inside = min(below + s, 1 - trimmed) - max(below, trimmed)
        total += x * max(inside, 0)
        below += s
    return total / (1 - 2 * trimmed)


@pytest.mark.parametrize("cap", [None, 0.12, 0.4])
def test_order_statistics_against_naive_loops(cap):
    weights, given = [190, 1200, 300, 900, 640, 410, 700, 500], rows(8)
    shares = naive_shares(weights, 1 / 3 if cap is None else max(cap, 1 / 8))
    table = given.double().tolist()
    columns = [list(column) for column in zip(*table, strict=True)]
    medians = torch.tensor([naive_median(column, shares) for column in columns])
    close(aggregate(WeightedMedian(1, cap), given, examples=weights), medians)
    held = max(shares)
    trimmed = torch.tensor([naive_trimmed_mean(column, shares, held) for column in columns])
    close(aggregate(WeightedTrimmedMean(1, cap), given, examples=weights), trimmed)


def test_the_geometric_median_has_the_least_weighted_sum_of_distances():
    given, weights = rows(), torch.tensor(WEIGHTS) * 100
    step = aggregate(WeightedGeometricMedian(2, 1.0, *WEISZFELD), given, examples=weights)

    def cost(z):
        return float((weights * (given - z).double().norm(dim=1)).sum())

    generator = torch.Generator().manual_seed(1)
    for size in (1e-1, 1e-2):
        for _ in range(20):
            away = size * torch.randn(step.shape, generator=generator)
            assert cost(step) <= cost(step + away) * (1 + 1e-7)


def test_the_radius_is_the_weighted_median_distance_by_hand():
    # Distances 1, 2, 10 with half of the weight at 2: pulls 0.25 x 1 + 0.5 x 2 - 0.25 x 2.
    step = aggregate(
        WeightedCentredClipping(0, 1.0, None, 1),
        torch.tensor([[1.0], [2.0], [-10.0]]),
        examples=[1, 2, 1],
    )
    assert step.tolist() == [0.75]


def test_without_liars_the_trimmed_mean_is_fedavg():
    given = rows()
    expected = aggregate(Mean("examples"), given, examples=WEIGHTS)
    close(aggregate(WeightedTrimmedMean(0, None), given, examples=WEIGHTS), expected)
    mixed = WeightedNearestNeighbourMixing(0, None)(updates(given, WEIGHTS), None).matrix
    close(mixed, expected.repeat(10, 1))


@each_pair
@pytest.mark.parametrize("liar", ["the smallest", "the largest", "one that says it is huge"])
def test_a_liar_stays_among_the_honest(weighted, plain, liar):
    """Under the cap that the rules take by themselves, whatever a site weighs or claims."""
    weights = [190, 17834, 5000, 1200, 300, 9000, 640, 2500, 410, 7000]
    k = 1 if liar == "the largest" else 0
    if liar == "one that says it is huge":
        weights[0] = 10**12
    given = 1 + 0.1 * rows()
    given[k] = -1e6
    rule = weighted(1)
    rule = type(rule)(**{**vars(rule), "max_share": None})
    far = (aggregate(rule, given, examples=weights) - 1).abs().max()
    if isinstance(rule, WeightedCentredClipping):  # the centre moves towards them, from 0
        assert (aggregate(rule, given, examples=weights) > 0).all()
    else:
        assert far < 0.5


def test_a_nan_is_not_hidden_by_the_weight_of_others():
    given = rows()
    given[3, 2] = torch.nan
    shares = capped_shares(torch.tensor(WEIGHTS), 1.0)
    for step in (weighted_median(given, shares), weighted_trimmed_mean(given, shares, 0.4)):
        assert step.isnan().tolist() == [False, False, True, False, False, False, False]


def test_chunks_of_columns_join():
    given = rows(5, 60_000)
    shares = capped_shares(torch.tensor([3, 1, 1, 2, 2]), 1.0)
    tail = given[:, -5:]
    assert torch.equal(weighted_median(given, shares)[-5:], weighted_median(tail, shares))
    assert torch.equal(
        weighted_trimmed_mean(given, shares, 0.3)[-5:], weighted_trimmed_mean(tail, shares, 0.3)
    )


RULES = [*(weighted for weighted, _ in PAIRS.values())]


@pytest.mark.parametrize("make", RULES, ids=PAIRS)
def test_a_weight_that_liars_could_carry_is_refused_with_the_way_out(make):
    with pytest.raises(InputError, match=r"max_share=1.0: the 1 heaviest .*use at most 1 / [35]"):
        aggregate(make(1), rows(6), examples=[1, 1, 1, 1, 1, 9])


def test_mixing_refuses_it_too():
    with pytest.raises(InputError, match=r"max_share=0.8: the 1 heaviest of the 4 clients"):
        WeightedNearestNeighbourMixing(1, 0.8)(updates(rows(4), [9, 1, 1, 1]), None)
    with pytest.raises(InputError, match="assumed_malicious=2: needs more than 2 x 2"):
        WeightedNearestNeighbourMixing(2, None)(updates(rows(4)), None)


@pytest.mark.parametrize("wrong", [0, -0.1, 1.5, float("nan")])
def test_a_cap_is_a_share(wrong):
    for make in (
        lambda cap: WeightedMedian(1, cap),
        lambda cap: WeightedTrimmedMean(1, cap),
        lambda cap: WeightedGeometricMedian(1, cap, *WEISZFELD),
        lambda cap: WeightedKrum(1, cap, 1),
        lambda cap: WeightedCentredClipping(1, cap, None, 1),
        lambda cap: WeightedNearestNeighbourMixing(1, cap),
    ):
        with pytest.raises(InputError, match="max_share="):
            make(wrong)


def test_krum_refuses_what_it_cannot_trust():
    with pytest.raises(InputError, match=r"assumed_malicious=2: needs at least 2 x 2 \+ 3"):
        aggregate(WeightedKrum(2, None, 1), rows(6))
    with pytest.raises(InputError, match="selected=9: at most n - f = 10 - 2"):
        aggregate(WeightedKrum(2, None, 9), rows())
    # Less than half, but no neighbours are left for a majority without them.
    with pytest.raises(InputError, match=r"max_share=0.45: the 1 heaviest clients hold 45\.0%"):
        aggregate(WeightedKrum(1, 0.45, 1), rows(5), examples=[9, 1, 1, 1, 1])


def test_several_selected_rows_weigh_by_their_examples():
    given = torch.tensor([[0.0], [1.0], [0.5], [0.4], [99.0]])
    step = aggregate(WeightedKrum(1, None, 2), given, examples=[1, 1, 2, 2, 1])
    assert step.tolist() == pytest.approx([0.45])


def test_numpy_in_numpy_out():
    given = np.array([[0.0], [1.0], [50.0]], dtype=np.float32)
    assert aggregate(WeightedMedian(1, None), given).tolist() == [1.0]
