"""k-means of several small sets of points at once, as long as nothing else changes.

    labels: the nearest centre;   centres: the mean of those who have its label;   repeat

The first centres are those of k-means++: each next one is a point, drawn in proportion to its
squared distance to the nearest centre so far. Of STARTS such draws the one counts that ends with
the smallest sum of squared distances. A centre that nobody is nearest to stays where it is.

Sources: Lloyd, "Least Squares Quantization in PCM", 1982; Arthur and Vassilvitskii, "k-means++: The
Advantages of Careful Seeding", SODA 2007. Written out because the gap statistic needs dozens of
fits a round of some twenty points each, and scikit-learn takes milliseconds to begin one.
"""

from __future__ import annotations

import numpy as np

STARTS = 4
STEPS = 100


def k_means(points: np.ndarray, k: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Labels `[r, n]`, from 0, and sums of squared distances `[r]` of `points` `[r, n, p]`.

    The order of the points of a set plays no part but for what the clusters are called.

    >>> from fedexp.core.rng import generator
    >>> labels, within = k_means(np.array([[[0.0], [9.0], [0.0]]]), 2, generator(0, "example"))
    >>> bool(labels[0, 0] == labels[0, 2] != labels[0, 1]), within.tolist()
    (True, [0.0])
    """
    order = np.stack([np.lexsort(one.T) for one in points])
    ordered = np.take_along_axis(points, order[:, :, None], axis=1)
    repeated = np.repeat(ordered, STARTS, axis=0)
    labels, within = _lloyd(repeated, _first_centres(repeated, k, rng))
    best = within.reshape(-1, STARTS).argmin(axis=1) + STARTS * np.arange(len(points))
    answer = np.empty(order.shape, dtype=np.int64)
    np.put_along_axis(answer, order, labels[best], axis=1)
    return answer, within[best]


def _first_centres(points: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """`[r, k, p]`."""
    sets, n = np.arange(len(points)), points.shape[1]
    centres = [points[sets, rng.integers(n, size=len(points))]]
    nearest = np.full(points.shape[:2], np.inf)
    for _ in range(k - 1):
        nearest = np.minimum(nearest, np.square(points - centres[-1][:, None]).sum(axis=2))
        reached = nearest.cumsum(axis=1)
        drawn = rng.uniform(size=len(points))[:, None] * reached[:, -1:]
        centres.append(points[sets, np.minimum((reached <= drawn).sum(axis=1), n - 1)])
    return np.stack(centres, axis=1)


def _lloyd(points: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels `[r, n]` and sums of squared distances `[r]`, from first centres `[r, k, p]`."""
    labels, apart = _nearest(points, centres)
    for _ in range(STEPS):
        members = labels[:, :, None] == np.arange(centres.shape[1])
        counts = members.sum(axis=1)[:, :, None]
        sums = np.swapaxes(members, 1, 2).astype(points.dtype) @ points
        centres = np.where(counts > 0, sums / np.maximum(counts, 1), centres)
        before, (labels, apart) = labels, _nearest(points, centres)
        if np.array_equal(before, labels):
            break
    return labels, apart.sum(axis=1)


def _nearest(points: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest centre `[r, n]`, and the squared distance to it `[r, n]`."""
    columns = np.swapaxes(centres, 0, 1)
    apart = np.stack([np.square(points - one[:, None]).sum(axis=2) for one in columns], axis=2)
    return apart.argmin(axis=2), apart.min(axis=2)
