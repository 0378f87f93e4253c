"""The gap statistic and k-means of small sets, against scikit-learn and a loop."""

import numpy as np
import pytest
from sklearn.cluster import KMeans

from fedexp.core.rng import generator
from fedexp.detection.gap_statistic import chosen, number_of_clusters
from fedexp.detection.k_means import k_means


def heaps(*centres, size=8, spread=0.1):
    draw = np.random.default_rng(3)
    return np.concatenate([np.array(c) + spread * draw.normal(size=(size, 2)) for c in centres])


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_k_means_finds_what_scikit_learn_finds(k):
    points = heaps((0, 0), (4, 0), (0, 5))
    labels, within = k_means(points[None], k, generator(0, "test"))
    other = KMeans(k, n_init=10, random_state=0).fit(points)
    assert within[0] <= other.inertia_ * (1 + 1e-9) or k > 3  # which has many optima beyond three
    if k <= 3:
        mine, its = labels[0], other.labels_
        assert np.array_equal(mine[:, None] == mine, its[:, None] == its)
    by_hand = sum(
        np.square(points[labels[0] == c] - points[labels[0] == c].mean(axis=0)).sum()
        for c in range(k)
    )
    np.testing.assert_allclose(within[0], by_hand)


def test_sets_go_side_by_side_and_in_any_order():
    points = heaps((0, 0), (4, 0))
    labels, within = k_means(np.stack([points, points[::-1]]), 2, generator(0, "test"))
    np.testing.assert_allclose(within[0], within[1])
    one, other = labels[0], labels[1][::-1]
    assert np.array_equal(one[:, None] == one, other[:, None] == other)


def test_more_clusters_than_points_are_no_matter():
    labels, within = k_means(np.zeros((1, 3, 2)), 5, generator(0, "test"))
    assert within.tolist() == [0]
    assert len(set(labels[0])) == 1


@pytest.mark.parametrize(
    ("centres", "k"), [([(0, 0)], 1), ([(0, 0), (4, 4)], 2), ([(0, 0), (4, 0), (0, 5)], 3)]
)
def test_as_many_clusters_as_there_are_heaps(centres, k):
    assert number_of_clusters(heaps(*centres), 6, 20, generator(0, "test")) == k


def test_the_first_k_that_is_no_worse_than_the_next_one():
    gaps, errors = [0.2, 0.5, 0.55, 0.9], [0.0, 0.1, 0.1, 0.1]
    naive = next(k for k in (1, 2, 3) if gaps[k - 1] >= gaps[k] - errors[k])
    assert chosen(gaps, errors) == naive == 2
    assert chosen([0.1, 0.5, 0.9], [0, 0.1, 0.1]) == 3  # none: the most that were tried


@pytest.mark.parametrize("points", [np.zeros((5, 1)), np.array([[0.0], [1.0]]), np.zeros((1, 2))])
def test_too_few_distinct_points_are_one_cluster(points):
    assert number_of_clusters(points, 4, 5, generator(0, "test")) == 1
