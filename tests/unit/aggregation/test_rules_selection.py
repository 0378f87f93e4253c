"""Bulyan, centred clipping, the mean around the median and MoNNA.

Cases computed by hand, loops typed from the papers, and byzfl where it has the rule.
"""

from itertools import permutations

import byzfl
import pytest
import torch

from fedexp.aggregation.bulyan import Bulyan, iterated_krum
from fedexp.aggregation.centred_clipping import CentredClipping
from fedexp.aggregation.meamed import MeanAroundMedian
from fedexp.aggregation.monna import NearestNeighbourAveraging
from fedexp.core.checks import InputError
from fedexp.core.geometry import squared_distances
from tests.support.updates import updates

RNG = None  # the rules here draw nothing
SHAPES = [(7, 1, 1), (8, 1, 5), (11, 2, 40_000), (12, 2, 33), (23, 5, 100)]  # n, f, d


def column(*values):
    return torch.tensor(values, dtype=torch.float32)[:, None]


def random_rows(n, d, seed=0):
    rows = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    rows[1] += 3
    return rows


def step_of(rule, rows):
    return rule(updates(rows), rule.init(rows.shape[1]), RNG)[0]


# Mean around the median


def naive_mean_around_median(rows, count):
    result = []
    for values in rows.double().T.tolist():
        ordered = sorted(values)
        k = len(ordered)
        median = (ordered[(k - 1) // 2] + ordered[k // 2]) / 2
        result.append(sum(sorted(values, key=lambda v: abs(v - median))[:count]) / count)
    return torch.tensor(result)


def test_mean_around_median_by_hand():
    # The median of 0, 1, 2, 9 is 1.5; of 9, 8, 7, 0, 6 it is 7.
    rows = torch.tensor([[0.0, 9.0], [9.0, 8.0], [1.0, 7.0], [2.0, 0.0]])
    assert step_of(MeanAroundMedian(1), rows).tolist() == [1.0, 8.0]
    assert step_of(MeanAroundMedian(0), rows).tolist() == [3.0, 6.0]
    assert step_of(MeanAroundMedian(2), column(9, 8, 7, 0, 6)).tolist() == [7.0]


def test_of_two_values_equally_far_from_the_median_the_smaller_is_kept():
    assert step_of(MeanAroundMedian(1), column(2, 0, 1)).tolist() == [0.5]


def test_a_huge_value_that_is_left_out_leaves_no_rounding_behind():
    assert step_of(MeanAroundMedian(2), column(-1e30, 1, 2, 3, -1e30)).tolist() == [2.0]
    assert step_of(MeanAroundMedian(1), column(1, 2, 3, 1e30)).tolist() == [2.0]


@pytest.mark.parametrize(("n", "f", "d"), SHAPES)
def test_mean_around_median_against_the_loop_and_byzfl(n, f, d):
    rows = random_rows(n, d)
    step = step_of(MeanAroundMedian(f), rows)
    torch.testing.assert_close(step, byzfl.Meamed(f)(rows), rtol=1e-5, atol=1e-5)
    few = rows[:, :50]
    expected = naive_mean_around_median(few, n - f).float()
    torch.testing.assert_close(step[:50], expected, rtol=1e-5, atol=1e-6)


def test_mean_around_median_refuses_a_majority():
    with pytest.raises(InputError, match=r"assumed_malicious=2: .* 2 x 2 .* 4 are in"):
        step_of(MeanAroundMedian(2), torch.zeros(4, 1))


# Bulyan


def naive_bulyan(rows, f):
    """Section 4 of El Mhamdi et al., and which of equal Krum scores is the lower."""
    rows = rows.double()
    left, chosen = list(range(len(rows))), []
    while len(chosen) < len(rows) - 2 * f:
        m = len(left)
        neighbours = max(m - f - 2, 1)
        scores = []
        for i in left:
            away = sorted(float((rows[i] - rows[j]).square().sum()) for j in left if j != i)
            scores.append((sum(away[:neighbours]), away[neighbours : neighbours + 1], i))
        chosen.append(min(scores)[2])
        left.remove(chosen[-1])
    return chosen, naive_mean_around_median(rows[chosen], len(rows) - 4 * f)


def test_bulyan_by_hand():
    # Krum with 4, 3, 2, 1 and 1 neighbours takes 3 (71), 6 (77), 1 (82), then 10 (25 like 15, but
    # its next neighbour is nearer) and 15. Nearest to their median, 6, are 6, 3 and 10.
    rows = [0.0, 1.0, 3.0, 6.0, 10.0, 15.0, 100.0]
    chosen = iterated_krum(squared_distances(column(*rows)), 1)
    assert [rows[i] for i in chosen] == [3.0, 6.0, 1.0, 10.0, 15.0]
    assert step_of(Bulyan(1), column(*rows)).item() == pytest.approx(19 / 3)


def test_bulyan_by_hand_in_every_order():
    orders = list(permutations([0.0, 1.0, 3.0, 6.0, 10.0, 15.0, 100.0]))[::97]
    steps = {round(step_of(Bulyan(1), column(*order)).item(), 5) for order in orders}
    assert steps == {round(19 / 3, 5)}


@pytest.mark.parametrize(("n", "f", "d"), SHAPES)
@pytest.mark.parametrize("seed", range(3))
def test_bulyan_against_the_loop(n, f, d, seed):
    rows = random_rows(n, min(d, 300), seed)
    chosen, expected = naive_bulyan(rows, f)
    assert iterated_krum(squared_distances(rows), f).tolist() == chosen
    torch.testing.assert_close(step_of(Bulyan(f), rows), expected.float(), rtol=1e-5, atol=1e-6)


def test_bulyan_without_liars_is_the_mean():
    rows = random_rows(5, 20)
    torch.testing.assert_close(step_of(Bulyan(0), rows), rows.mean(dim=0), rtol=1e-6, atol=1e-6)


def test_bulyan_refuses_too_few_clients():
    with pytest.raises(InputError, match=r"assumed_malicious=2: needs at least 4 x 2 \+ 3 .* 10 "):
        step_of(Bulyan(2), torch.zeros(10, 1))
    assert step_of(Bulyan(2), torch.zeros(11, 1)).tolist() == [0.0]


# Centred clipping


def test_centred_clipping_by_hand():
    rule = CentredClipping(0, radius=2.0, iterations=1)
    given = updates(column(1, 3, -100))
    step, state = rule(given, rule.init(1), RNG)
    assert step.item() == pytest.approx((1 + 2 - 2) / 3)
    step, state = rule(given, state, RNG)  # from 1/3: pulls of 2/3, 2 and -2
    assert step.item() == pytest.approx(1 / 3 + (2 / 3) / 3)
    assert state["centre"].item() == step.item()
    twice = CentredClipping(0, radius=2.0, iterations=2)
    assert step_of(twice, given.matrix).item() == pytest.approx(step.item())


def test_centred_clipping_at_the_median_distance_by_hand():
    rule = CentredClipping(1, radius=None, iterations=1)
    # Distances to 0 are 1, 3, 100: clipped at 3. Then, from 1/3, they are 2/3, 8/3 and 100 1/3.
    step, state = rule(updates(column(1, 3, -100)), rule.init(1), RNG)
    assert step.item() == pytest.approx((1 + 3 - 3) / 3)
    step, _ = rule(updates(column(1, 3, -100)), state, RNG)
    assert step.item() == pytest.approx(1 / 3 + (2 / 3 + 8 / 3 - 8 / 3) / 3)


@pytest.mark.parametrize("iterations", [1, 2, 5])
@pytest.mark.parametrize(("n", "f", "d"), SHAPES)
def test_centred_clipping_against_byzfl_over_rounds(n, f, d, iterations):
    radius = 0.7 * d**0.5
    rule, other = CentredClipping(f, radius, iterations), byzfl.CenteredClipping(None, iterations)
    other.tau = radius
    state = rule.init(d)
    for seed in range(3):
        rows = random_rows(n, d, seed)
        step, state = rule(updates(rows), state, RNG)
        torch.testing.assert_close(step, other(rows), rtol=1e-5, atol=1e-5)


def naive_clipping_at_the_median(rows, centre, iterations):
    rows, centre = rows.double(), centre.double()
    for _ in range(iterations):
        away = rows - centre
        radius = away.norm(dim=1).median() if len(rows) % 2 else away.norm(dim=1).quantile(0.5)
        clipped = [a * min(1.0, float(radius / a.norm())) for a in away]
        centre = centre + torch.stack(clipped).mean(dim=0)
    return centre


@pytest.mark.parametrize("n", [9, 10])
@pytest.mark.parametrize("offset", [0.0, 300.0])  # far from the centre, next to each other
def test_centred_clipping_at_the_median_distance_against_the_loop(n, offset):
    rows = random_rows(n, 20_000) + offset
    centre = torch.zeros(20_000)
    step = step_of(CentredClipping(2, None, 3), rows)
    expected = naive_clipping_at_the_median(rows, centre, 3).float()
    torch.testing.assert_close(step, expected, rtol=1e-5, atol=1e-5)


def test_no_row_moves_the_centre_farther_than_its_share_of_the_radius():
    rows = random_rows(10, 50)
    rule = CentredClipping(1, radius=2.0, iterations=1)
    before = step_of(rule, rows)
    rows[4] = 1e6
    # From the centre a row is anywhere in a ball of radius 2, so a tenth of its width is the most.
    assert (step_of(rule, rows) - before).norm() <= 2 * 2.0 / 10 + 1e-6


def test_rows_on_the_centre_leave_it_there():
    for radius in (None, 1.0):
        assert step_of(CentredClipping(1, radius, 3), torch.zeros(4, 2)).tolist() == [0.0, 0.0]


def test_centred_clipping_refuses_what_makes_no_sense():
    for radius in (0.0, -1.0, float("nan")):
        with pytest.raises(InputError, match="radius="):
            CentredClipping(0, radius, 1)
    with pytest.raises(InputError, match="iterations=0"):
        CentredClipping(0, None, 0)
    with pytest.raises(InputError, match=r"assumed_malicious=2: .* 4 are in"):
        step_of(CentredClipping(2, None, 1), torch.zeros(4, 1))


# MoNNA


def test_monna_by_hand():
    rows = column(0, 1, 3, 10, -2)
    assert step_of(NearestNeighbourAveraging(2, 0), rows).item() == pytest.approx((0 + 1 - 2) / 3)
    assert step_of(NearestNeighbourAveraging(2, 2), rows).item() == pytest.approx((3 + 1 + 0) / 3)


def test_the_pivot_is_a_client_and_not_a_place():
    rows = random_rows(6, 40)
    given = updates(rows, client_ids=(4, 11, 3, 9, 0, 7))
    step, _ = NearestNeighbourAveraging(2, pivot_client=9)(given, {}, RNG)
    torch.testing.assert_close(step, byzfl.MoNNA(2, idx=3)(rows), rtol=1e-5, atol=1e-5)
    backwards = updates(rows.flip(0), client_ids=given.client_ids[::-1])
    again, _ = NearestNeighbourAveraging(2, pivot_client=9)(backwards, {}, RNG)
    torch.testing.assert_close(again, step, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("n", "f", "d"), SHAPES)
def test_monna_against_the_loop_and_byzfl(n, f, d):
    rows = random_rows(n, d)
    for pivot in (0, n - 1):
        step = step_of(NearestNeighbourAveraging(f, pivot), rows)
        exact = rows.double()
        near = sorted(range(n), key=lambda i: float((exact[i] - exact[pivot]).norm()))[: n - f]
        torch.testing.assert_close(step, exact[near].mean(dim=0).float(), rtol=1e-5, atol=1e-6)
        theirs = byzfl.MoNNA(f, pivot)(rows)
        torch.testing.assert_close(step, theirs, rtol=1e-5, atol=1e-5)


def test_monna_refuses_a_round_without_its_pivot_and_a_majority():
    given = updates(torch.zeros(3, 1), client_ids=(2, 5, 6))
    with pytest.raises(InputError, match="pivot_client=4: client 4 is not among the 3"):
        NearestNeighbourAveraging(1, pivot_client=4)(given, {}, RNG)
    with pytest.raises(InputError, match=r"assumed_malicious=2: .* 3 are in"):
        NearestNeighbourAveraging(2, pivot_client=5)(given, {}, RNG)
