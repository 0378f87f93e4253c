"""Rules that drop rows, against hand-computed cases and loops typed from the papers."""

import math

import numpy as np
import pytest
import torch
from sklearn.cluster import MeanShift, estimate_bandwidth
from sklearn.metrics.pairwise import cosine_similarity

from fedexp.aggregation.dnc import DnC, outlier_scores
from fedexp.aggregation.flame import Flame, majority_cluster
from fedexp.aggregation.signguard import SignGuard, sign_shares
from fedexp.core.checks import InputError
from fedexp.core.norms import clip_factors, cosines, gram, median, row_norms
from tests.support.updates import updates

HONEST, LIARS = 16, 4


def rng(seed=0):
    return np.random.default_rng(seed)


def random_rows(n=9, d=40_000, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def sign_flipped(d=3000, seed=0):
    """Similar honest rows that mostly point up, the last fifth turned round."""
    rows = 1 + random_rows(HONEST + LIARS, d, seed)
    rows[HONEST:] *= -1
    return rows


def dnc(f=LIARS, iterations=5, subsample=500, fraction=1.0):
    return DnC(f, iterations, subsample, fraction)


def signguard(f=0, lowest=0.1, highest=3.0, coordinates=0.5, clustering="mean_shift"):
    return SignGuard(f, lowest, highest, coordinates, clustering, 0.5)


def flame(f=0, neighbours=1, noise=0.0):
    return Flame(f, neighbours, noise)


# --- what the rules share


def test_norms_and_cosines_against_float64_and_sklearn():
    rows = random_rows() * torch.logspace(-3, 3, 9)[:, None]
    exact = rows.double()
    torch.testing.assert_close(row_norms(rows), exact.norm(dim=1), rtol=1e-6, atol=0)
    expected = torch.from_numpy(cosine_similarity(exact.numpy()))
    torch.testing.assert_close(cosines(gram(rows)), expected, rtol=0, atol=1e-6)


def test_inner_products_are_symmetric_to_the_last_bit():
    for seed in range(20):
        rows = random_rows(9, 14, seed)
        products = gram(rows)
        assert torch.equal(products, products.T)
        flame()(updates(rows), {}, rng())  # scikit-learn refuses distances that are not


def test_a_row_of_zeros_and_one_too_long_for_float32_point_nowhere():
    rows = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1e30, 1e30], [-1e30, 1e30], [2.0, 0.0]])
    expected = torch.zeros(5, 5, dtype=torch.float64)
    expected[0, 0] = expected[4, 4] = expected[0, 4] = expected[4, 0] = 1
    assert torch.equal(cosines(gram(rows)), expected)
    assert row_norms(rows).tolist() == [1, 0, math.inf, math.inf, 2]
    assert clip_factors(row_norms(rows), 1.0).tolist() == [1, 1, 0, 0, 0.5]


def test_the_median_of_an_even_number_is_between_the_middle_two():
    assert median(torch.tensor([4.0, 1.0, 100.0, 2.0])) == 3
    assert median(torch.tensor([4.0, 1.0, 100.0])) == 4


@pytest.mark.parametrize(
    "rule", [dnc(f=0), signguard(), flame()], ids=["dnc", "signguard", "flame"]
)
@pytest.mark.parametrize("n", [1, 2, 3, 10])
def test_clients_that_agree_or_say_nothing(rule, n):
    for row in (torch.zeros(1), torch.tensor([-2.0]), torch.tensor([0.0, 1.0, -3.0])):
        step, state = rule(updates(row.repeat(n, 1)), {}, rng())
        torch.testing.assert_close(step, row)
        assert state == {}


@pytest.mark.parametrize("rule", [dnc(f=2), signguard(f=2), flame(f=2)])
def test_a_majority_of_liars_is_refused(rule):
    with pytest.raises(
        InputError, match="assumed_malicious=2: needs more than 2 x 2 clients, but 4"
    ):
        rule(updates(torch.zeros(4, 2)), {}, rng())


@pytest.mark.parametrize(
    "rule",
    [dnc(), signguard(), signguard(clustering="kmeans"), flame(), flame(noise=1e-9)],
    ids=["dnc", "mean_shift", "kmeans", "flame", "flame with noise"],
)
def test_sign_flipped_rows_have_no_influence(rule):
    rows = sign_flipped()
    step, _ = rule(updates(rows), {}, rng())
    rows[HONEST:] = -7 * rows[HONEST:].flip(1) - 5  # other lies, as different from the honest
    other, _ = rule(updates(rows), {}, rng())
    assert torch.cosine_similarity(step, torch.ones_like(step), dim=0) > 0.9
    # The median norm, to which two of the rules clip, may move within the honest norms.
    assert torch.cosine_similarity(step, other, dim=0) > 0.999


@pytest.mark.parametrize("rule", [dnc(), signguard(clustering="kmeans"), flame(noise=0.1)])
def test_the_stream_alone_decides_what_is_drawn(rule):
    rows = random_rows(12, 2000)
    first, again, other = (rule(updates(rows), {}, rng(seed))[0] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


# --- DnC


def naive_dnc(rows, f, iterations, subsample, fraction, stream):
    """Algorithm 2 of Shejwalkar and Houmansadr, line by line, with a full decomposition."""
    rows, n = rows.double(), len(rows)
    good = set(range(n))
    for _ in range(iterations):
        drawn = np.sort(stream.choice(rows.shape[1], subsample, replace=False, shuffle=False))
        part = rows[:, torch.from_numpy(drawn)]
        centred = part - part.mean(dim=0)
        v = torch.linalg.svd(centred, full_matrices=False).Vh[0]
        scores = [float(centred[k] @ v) ** 2 for k in range(n)]
        good &= set(sorted(range(n), key=lambda k: scores[k])[: n - math.ceil(fraction * f)])
    return rows[sorted(good)].mean(dim=0)


@pytest.mark.parametrize(("f", "iterations", "fraction"), [(3, 1, 1.0), (3, 4, 1.0), (2, 2, 1.5)])
def test_dnc_against_the_loop(f, iterations, fraction):
    rows = random_rows(15, 900)
    step, _ = dnc(f, iterations, 200, fraction)(updates(rows), {}, rng(3))
    expected = naive_dnc(rows, f, iterations, 200, fraction, rng(3))
    torch.testing.assert_close(step.double(), expected, rtol=0, atol=1e-6)


def test_dnc_by_hand():
    # Centred: -3, -2, -1, 6 on the one coordinate that varies; their squares are the scores.
    rows = torch.tensor([[0.0, 5.0], [1.0, 5.0], [2.0, 5.0], [9.0, 5.0]])
    assert outlier_scores(rows.double()).tolist() == pytest.approx([9, 4, 1, 36])
    assert dnc(1, 1, 2)(updates(rows), {}, rng())[0].tolist() == [1.0, 5.0]
    assert dnc(1, 1, 2, 2.0)(updates(rows), {}, rng())[0].tolist() == [1.5, 5.0]


def test_dnc_drops_whole_rows_only():
    step, _ = dnc(30, 1, 1, 0.1)(updates(torch.arange(70.0)[:, None] ** 2), {}, rng())
    assert step.item() == pytest.approx((torch.arange(67.0) ** 2).mean().item())


def test_dnc_whose_iterations_drop_everybody_stays_where_it_is():
    # Each coordinate has its own outlier, and a subset is one coordinate.
    rows = 10 * torch.eye(3)
    step, _ = dnc(1, 60, 1)(updates(rows), {}, rng())
    assert step.tolist() == [0.0, 0.0, 0.0]


def test_dnc_stands_rows_whose_squares_overflow():
    rows = random_rows(10, 50)
    rows[9] = 1e30
    step, _ = dnc(1, 1, 50)(updates(rows), {}, rng())
    torch.testing.assert_close(step, rows[:9].mean(dim=0))


def test_dnc_refuses_to_drop_every_row():
    with pytest.raises(InputError, match=r"filter_fraction=5\.0: would drop 10 of the 10 rows"):
        dnc(2, fraction=5.0)(updates(torch.zeros(10, 1)), {}, rng())


@pytest.mark.parametrize(
    "wrong", [{"f": -1}, {"iterations": 0}, {"subsample": 0}, {"fraction": 0.0}]
)
def test_dnc_refuses_nonsense(wrong):
    with pytest.raises(InputError, match="must be"):
        dnc(**wrong)


# --- SignGuard


def naive_signguard(rows, lowest, highest, share, stream):
    """SignGuard with mean shift, row by row."""
    rows = rows.double()
    n, d = rows.shape
    norms = [float(row.norm()) for row in rows]
    middle = float(np.median(norms))
    usual = {k for k in range(n) if lowest * middle <= norms[k] <= highest * middle}
    columns = stream.choice(d, math.ceil(share * d), replace=False)
    points = np.array(
        [[np.mean(np.sign(row.numpy()[columns]) == s) for s in (1, 0, -1)] for row in rows]
    )
    radius = estimate_bandwidth(points, quantile=0.5)
    labels = MeanShift(bandwidth=radius, cluster_all=False).fit(points).labels_
    largest = max(set(labels.tolist()) - {-1}, key=labels.tolist().count)
    kept = [k for k in usual if labels[k] == largest]
    return sum(min(1, middle / norms[k]) * rows[k] for k in kept) / len(kept)


def test_signguard_against_the_loop():
    rows = random_rows(12, 300) + torch.linspace(-0.5, 1, 12)[:, None]
    rows[3] *= 50
    rows[4] *= 0.01
    rows[:, ::7] = 0
    step, _ = signguard()(updates(rows), {}, rng(5))
    expected = naive_signguard(rows, 0.1, 3.0, 0.5, rng(5))
    torch.testing.assert_close(step.double(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("clustering", ["mean_shift", "kmeans"])
def test_signguard_by_hand(clustering):
    # Norms 5, 5, 10, 5, 50, 0.05: the median is 5. By norm the last two go, by sign the fourth.
    rows = torch.tensor([[3.0, 4], [4, 3], [6, 8], [-3, -4], [30, 40], [0.03, 0.04]])
    rule = signguard(coordinates=1.0, clustering=clustering)
    step, _ = rule(updates(rows), {}, rng())
    torch.testing.assert_close(step, torch.tensor([10 / 3, 11 / 3]))


def test_signguard_counts_signs():
    rows = torch.tensor([[1.0, -1.0, 0.0, 5.0], [-0.0, -2.0, -3.0, 9.0]])
    assert sign_shares(rows, torch.tensor([0, 1, 2])).tolist() == pytest.approx(
        torch.tensor([[1 / 3, 1 / 3, 1 / 3], [0, 1 / 3, 2 / 3]]).double()
    )


@pytest.mark.parametrize("clustering", ["mean_shift", "kmeans"])
def test_signguard_in_any_order(clustering):
    rows = random_rows(15, 200)
    order = torch.randperm(15, generator=torch.Generator().manual_seed(2))
    rule = signguard(clustering=clustering)
    step, _ = rule(updates(rows), {}, rng())
    torch.testing.assert_close(rule(updates(rows[order]), {}, rng())[0], step)


def test_signguard_without_anybody_who_passes_stays_where_it_is():
    # The largest cluster by sign is the three short rows, and none of them passes by norm.
    rows = torch.tensor([[1e-3, 1e-3]] * 3 + [[-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0], [0.0, 1.0]])
    step, _ = signguard(coordinates=1.0)(updates(rows), {}, rng())
    assert step.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"lowest": -0.1}, "lowest_norm=-0.1"),
        ({"lowest": 4.0}, "lowest_norm=4.0: is above highest_norm=3.0"),
        ({"coordinates": 0.0}, "coordinates=0.0"),
        ({"coordinates": 1.5}, "coordinates=1.5"),
        ({"clustering": "k-means"}, "did you mean kmeans"),
    ],
)
def test_signguard_refuses_nonsense(wrong, message):
    with pytest.raises(InputError, match=message):
        signguard(**wrong)


# --- FLAME


def first_majority(distances, neighbours):
    """Single linkage over mutual reachability, edge by edge, until a component has a majority."""
    n = len(distances)
    core = [sorted(row)[min(neighbours, n - 1)] for row in distances.tolist()]
    edges = [
        (max(float(distances[i, j]), core[i], core[j]), i, j) for i in range(n) for j in range(i)
    ]
    component = list(range(n))
    for reach in sorted({edge[0] for edge in edges}):
        for edge, i, j in edges:
            if edge == reach:
                mine, other = component[i], component[j]
                component = [mine if c == other else c for c in component]
        for c in set(component):
            if component.count(c) > n // 2:
                return [c == of_row for of_row in component]
    raise AssertionError("a spanning tree has joined all rows")


@pytest.mark.parametrize("neighbours", [1, 2, 4])
@pytest.mark.parametrize("n", [2, 3, 8, 15])
def test_hdbscan_finds_the_first_component_with_a_majority(n, neighbours):
    for seed in range(5):
        upper = torch.rand(n, n, generator=torch.Generator().manual_seed(seed)).triu(1)
        distances = upper + upper.T
        kept = majority_cluster(distances, neighbours)
        assert kept.tolist() == first_majority(distances, neighbours)


def naive_flame(rows, neighbours):
    """Algorithm 1 of Nguyen et al. without noise, on updates."""
    rows = rows.double()
    kept = first_majority(torch.from_numpy(1 - cosine_similarity(rows.numpy())), neighbours)
    norms = rows.norm(dim=1).tolist()
    middle = float(np.median(norms))
    chosen = [k for k in range(len(rows)) if kept[k]]
    return sum(min(1, middle / norms[k]) * rows[k] for k in chosen) / len(chosen)


def test_flame_against_the_loop():
    rows = random_rows(11, 600) * torch.linspace(0.5, 2, 11)[:, None] + 0.2
    step, _ = flame()(updates(rows), {}, rng())
    torch.testing.assert_close(step.double(), naive_flame(rows, 1), rtol=0, atol=1e-6)


def test_flame_by_hand():
    # Norms 5, 10, 5, 1, 2: the median is 5. Three rows along (3, 4), one clipped to half of itself.
    rows = torch.tensor([[3.0, 4], [6, 8], [3, 4], [-1, 0], [2, 0]])
    step, _ = flame()(updates(rows), {}, rng())
    torch.testing.assert_close(step, torch.tensor([3.0, 4.0]))


def test_flame_noise_has_the_size_of_the_median_norm():
    rows = torch.full((3, 10_000), 0.05)  # norm 5
    quiet, _ = flame()(updates(rows), {}, rng())
    loud, _ = flame(noise=0.02)(updates(rows), {}, rng())
    noise = (loud - quiet).double()
    # 10 000 draws: the standard deviation is good to 0.7 percent, the mean to 0.001.
    assert noise.std().item() == pytest.approx(0.1, rel=0.03)
    assert noise.mean().item() == pytest.approx(0, abs=0.004)


@pytest.mark.parametrize("wrong", [{"f": -1}, {"neighbours": 0}, {"noise": -1.0}])
def test_flame_refuses_nonsense(wrong):
    with pytest.raises(InputError, match="must be"):
        flame(**wrong)
