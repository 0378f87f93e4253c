"""Mean shift over a round's points, against scikit-learn's."""

import numpy as np
import pytest
from sklearn.cluster import MeanShift, estimate_bandwidth

from fedexp.aggregation.mean_shift import mean_shift, radius_of


def clouds(seed, n):
    draw = np.random.default_rng(seed)
    middles = draw.uniform(-3, 3, (3, 3))
    return middles[draw.integers(3, size=n)] + draw.normal(0, 0.4, (n, 3))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("n", "quantile"), [(3, 0.5), (20, 0.5), (20, 0.1), (31, 1.0)])
def test_radius_and_clusters_are_scikit_learns(seed, n, quantile):
    points = clouds(seed, n)
    radius = estimate_bandwidth(points, quantile=quantile)
    assert radius_of(points, quantile) == pytest.approx(radius, abs=1e-6)
    radius = max(radius, 0.1)  # a quantile of nobody but oneself gives 0
    theirs = MeanShift(bandwidth=radius, cluster_all=False).fit_predict(points)
    assert mean_shift(points, radius).tolist() == theirs.tolist()


def test_who_is_near_no_centre_belongs_nowhere():
    points = np.array([[5.2], [1.7], [3.6], [4.7], [4.3], [5.5], [5.2]])
    theirs = MeanShift(bandwidth=1.0, cluster_all=False).fit_predict(points)
    assert mean_shift(points, 1.0).tolist() == theirs.tolist() == [0, 1, -1, 0, 0, 0, 0]
