"""Rules on distances against hand-computed cases and loops typed from the papers."""

import byzfl
import pytest
import torch
from scipy.optimize import minimize

from fedexp.aggregation.geometric_median import GeometricMedian
from fedexp.aggregation.krum import Krum, krum_scores
from fedexp.core.checks import InputError
from fedexp.core.geometry import centred_gram, distances_to_point, squared_distances
from tests.support.updates import updates

RNG = None  # the rules here draw nothing


def random_rows(n=9, d=40_000, offset=0.0, scale=1.0, seed=0):
    g = torch.Generator().manual_seed(seed)
    return offset + scale * torch.randn(n, d, generator=g)


@pytest.mark.parametrize(("offset", "scale"), [(0, 1), (100, 1), (1, 1e-3), (0, 1e6)])
def test_squared_distances_against_float64_differences(offset, scale):
    rows = random_rows(offset=offset, scale=scale)
    exact = (rows.double()[:, None] - rows.double()[None]).square().sum(dim=2)
    torch.testing.assert_close(squared_distances(rows), exact, rtol=1e-5, atol=0)


def test_distances_to_a_weighted_mean():
    rows = random_rows()
    share = torch.softmax(torch.arange(9.0, dtype=torch.float64), dim=0)
    exact = (rows.double() - share @ rows.double()).norm(dim=1)
    torch.testing.assert_close(
        distances_to_point(centred_gram(rows), share), exact, rtol=1e-6, atol=0
    )


def weiszfeld(rows, weights, iterations, nu):
    """Algorithm 2 of RFA on the rows, in float64."""
    rows, weights = rows.double(), weights.double()
    point = (weights / weights.sum()) @ rows
    for _ in range(iterations):
        beta = weights / (rows - point).norm(dim=1).clamp_min(nu)
        point = (beta / beta.sum()) @ rows
    return point


@pytest.mark.parametrize("iterations", [1, 3, 20])
def test_geometric_median_against_weiszfeld_on_the_rows(iterations):
    rows = random_rows(d=3000)
    rows[0] += 50
    weights = [1.0, 2, 3, 4, 5, 6, 7, 8, 9]
    rule = GeometricMedian(2, "examples", iterations, 0.0, 1e-6)
    step, _ = rule(updates(rows, weights), {}, RNG)
    expected = weiszfeld(rows, torch.tensor(weights), iterations, 1e-6)
    rounding = 1e-7 * float(rows.abs().max())  # the step is a float32 sum of the rows
    torch.testing.assert_close(step.double(), expected, rtol=0, atol=rounding)


@pytest.mark.parametrize("iterations", [1, 3, 20])
@pytest.mark.parametrize("distance", [0.0, 50.0])
def test_geometric_median_from_zero_is_that_of_byzfl(iterations, distance):
    rows = random_rows(d=3000)
    rows[0] += distance
    step, _ = GeometricMedian(2, "uniform", iterations, 0.0, 0.1, "zero")(updates(rows), {}, RNG)
    expected = byzfl.GeometricMedian(nu=0.1, T=iterations)(rows).double()
    rounding = 1e-6 * float(rows.abs().max())
    torch.testing.assert_close(step.double(), expected, rtol=0, atol=rounding)


def test_one_step_from_zero_by_hand():
    # Distances to nothing are 1 and 4: shares of 4/5 and 1/5.
    rows = torch.tensor([[1.0, 0.0], [0.0, 4.0]])
    step, _ = GeometricMedian(0, "uniform", 1, 0.0, 0.1, "zero")(updates(rows), {}, RNG)
    torch.testing.assert_close(step, torch.tensor([0.8, 0.8]))


@pytest.mark.parametrize("distance", [0.0, 10.0, 1e3, 1e5])
@pytest.mark.parametrize(("n", "liars", "d"), [(20, 5, 30), (21, 10, 30), (9, 2, 2)])
def test_geometric_median_against_a_general_minimiser(n, liars, d, distance):
    rows = random_rows(n, d)
    rows[:liars] += distance
    step, _ = GeometricMedian(liars, "uniform", 1000, 1e-6, 1e-6)(updates(rows), {}, RNG)
    exact = rows.double()

    def distances(point):
        apart = torch.from_numpy(point) - exact
        lengths = apart.norm(dim=1)
        return float(lengths.sum()), (apart / lengths[:, None]).sum(dim=0).numpy()

    start = exact[liars:].mean(dim=0).numpy()  # where a defender cannot start
    best = minimize(distances, start, jac=True, method="BFGS", options={"gtol": 1e-9})
    assert distances(step.double().numpy())[0] <= best.fun * (1 + 2e-6)
    spread = float((exact[liars:] - exact[liars:].mean(dim=0)).norm(dim=1).mean())
    assert float((step.double() - torch.from_numpy(best.x)).norm()) < 0.02 * spread


def test_geometric_median_of_points_on_a_line_is_their_median():
    rows = torch.tensor([[0.0], [1.0], [2.0], [3.0], [1000.0]])
    step, _ = GeometricMedian(1, "uniform", 500, 0.0, 1e-9)(updates(rows), {}, RNG)
    assert step.item() == pytest.approx(2.0, abs=1e-3)


def test_geometric_median_of_equal_rows():
    rows = torch.full((4, 3), 7.0)
    step, _ = GeometricMedian(1, "uniform", 5, 1e-6, 1e-6)(updates(rows), {}, RNG)
    assert step.tolist() == [7.0, 7.0, 7.0]


def naive_krum_scores(rows, f):
    """Section 4 of Blanchard et al., a loop a sentence."""
    n = len(rows)
    scores = []
    for k in range(n):
        distances = sorted(
            float((rows[k].double() - rows[j].double()).square().sum()) for j in range(n) if j != k
        )
        scores.append(sum(distances[: n - f - 2]))
    return torch.tensor(scores, dtype=torch.float64)


def test_krum_scores_against_the_loop():
    rows = random_rows(d=500)
    torch.testing.assert_close(
        krum_scores(squared_distances(rows), 2), naive_krum_scores(rows, 2), rtol=1e-6, atol=0
    )


def test_krum_by_hand():
    # n = 5, f = 1: 2 neighbours each. 10 is far; 1 has the closest pair of neighbours (0 and 2).
    rows = torch.tensor([[0.0], [1.0], [2.0], [4.0], [10.0]])
    expected = pytest.approx([5.0, 2.0, 5.0, 13.0, 100.0])
    assert krum_scores(squared_distances(rows), 1).tolist() == expected
    assert Krum(1, selected=1)(updates(rows), {}, RNG)[0].tolist() == [1.0]
    assert Krum(1, selected=None)(updates(rows), {}, RNG)[0].tolist() == [1.75]


def test_krum_refuses_too_few_clients_and_too_many_selected():
    rows = torch.zeros(6, 2)
    with pytest.raises(InputError, match=r"assumed_malicious=2: needs at least 2 x 2 \+ 3"):
        Krum(2, selected=1)(updates(rows), {}, RNG)
    with pytest.raises(InputError, match="selected=6: at most n - f = 6 - 1"):
        Krum(1, selected=6)(updates(rows), {}, RNG)


@pytest.mark.parametrize("far", [1e4, 1e6, 1e12])
def test_one_far_row_hides_nobody_elses_distance(far):
    # Centred on the mean of all, honest distances would drown in the far row's rounding error.
    honest = random_rows(n=9, d=5000, offset=1.0, scale=0.1)
    rows = torch.cat([honest, torch.full((1, 5000), far)])
    exact = (honest.double()[:, None] - honest.double()[None]).square().sum(dim=2)
    torch.testing.assert_close(squared_distances(rows)[:9, :9], exact, rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    "rule",
    [Krum(3, selected=1), Krum(3, selected=None), GeometricMedian(3, "uniform", 20, 0.0, 1e-6)],
)
def test_a_far_row_opens_no_door_for_other_liars(rule):
    honest = random_rows(n=9, d=5000, offset=1.0, scale=0.1)
    attackers = torch.cat([torch.full((2, 5000), -1.0), torch.full((1, 5000), 1e6)])
    step, _ = rule(updates(torch.cat([honest, attackers])), {}, RNG)
    assert (step - 1).abs().mean() < 0.5
