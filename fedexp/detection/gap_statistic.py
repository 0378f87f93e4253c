"""The gap statistic: how many clusters k-means should make of a few points.

    W_k = sum of squared distances of the points to the nearest of k centres, found by k-means
    Gap(k) = mean over B references of log W*_k - log W_k
    k = the smallest with Gap(k) >= Gap(k + 1) - s_{k+1},   s_k = sd(log W*_k) sqrt(1 + 1 / B)

A reference is as many points, uniform in the unit cube; the points themselves are stretched to it,
each coordinate by its own range.

Source: Tibshirani, Walther and Hastie, "Estimating the Number of Clusters in a Data Set via the Gap
Statistic", JRSS B 63, 2001, section 4, with reference distribution (a). Where no k up to `most`
satisfies it, `most`. There are never more clusters than distinct points less one: with as many W_k
is 0, and its logarithm says nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedexp.detection.k_means import k_means


def number_of_clusters(
    points: np.ndarray, most: int, references: int, rng: np.random.Generator
) -> int:
    """How many clusters `points` `[n, p]` make; 1 where they are all the same.

    Args:
        points: finite; their order plays no part.
        most: clusters to try.
        references: B.
        rng: of the references and of the starting points of k-means.

    >>> from fedexp.core.rng import generator
    >>> two_heaps = np.array([[0.0], [0.1], [0.2], [9.0], [9.1], [9.2]])
    >>> number_of_clusters(two_heaps, 4, 10, generator(0, "example"))
    2
    """
    stretched = _stretched(points)
    most = min(most, len(np.unique(stretched, axis=0)) - 1)
    if most < 2:
        return 1
    sets = np.stack([stretched, *rng.uniform(size=(references, *stretched.shape))])
    within = np.log([k_means(sets, k, rng)[1] for k in range(1, most + 1)])
    own, others = within[:, 0], within[:, 1:]
    errors = others.std(axis=1) * np.sqrt(1 + 1 / references)
    return chosen((others.mean(axis=1) - own).tolist(), errors.tolist())


def chosen(gaps: Sequence[float], errors: Sequence[float]) -> int:
    """The smallest k with Gap(k) >= Gap(k + 1) - s_{k+1}; both sequences begin with k = 1.

    >>> chosen([0.1, 0.9, 0.8], [0.0, 0.1, 0.1])
    2
    """
    for k in range(1, len(gaps)):
        if gaps[k - 1] >= gaps[k] - errors[k]:
            return k
    return len(gaps)


def _stretched(points: np.ndarray) -> np.ndarray:
    """Each coordinate to [0, 1]; to 0 where it never changes."""
    low, high = points.min(axis=0), points.max(axis=0)
    stretched: np.ndarray = (points - low) / np.where(high > low, high - low, 1)
    return stretched
