"""Mean shift with a flat kernel, for a round's few points: every point climbs to where most are.

    c <- mean of the points within the radius of c,   from every point, until c is at rest

The places where they end are the clusters' centres; of two within the radius the one with fewer
points around it goes. A point belongs to the nearest centre, or, beyond the radius, to none.

Source: Comaniciu and Meer, "Mean Shift: A Robust Approach Toward Feature Space Analysis", IEEE
PAMI 2002, in scikit-learn's reading (`MeanShift(cluster_all=False)`, `estimate_bandwidth`), which
labels alike and takes a hundred times as long for twenty points: it asks a tree once a point and
step, where here all points move at once.
"""

from __future__ import annotations

import numpy as np

MOST_STEPS = 300
AT_REST = 1e-3  # a step so short, in radii


def radius_of(points: np.ndarray, quantile: float) -> float:
    """Mean distance to the neighbour at that quantile, oneself the first: of `[n, k]`.

    >>> float(radius_of(np.array([[0.0], [1.0], [3.0], [4.0]]), 0.5))
    1.0
    """
    neighbours = max(int(len(points) * quantile), 1)
    return float(np.sort(_distances(points, points), axis=1)[:, neighbours - 1].mean())


def mean_shift(points: np.ndarray, radius: float) -> np.ndarray:
    """The cluster of each of `[n, k]` points: `[n]` int64, -1 for none; 0 has the densest centre.

    >>> mean_shift(np.array([[0.0], [9.0], [0.5], [0.25]]), 1.0).tolist()
    [0, 1, 0, 0]
    """
    ends, around = _climbed(points, radius)
    found = {tuple(end): count for end, count in zip(ends, around, strict=True)}
    densest = sorted(found, key=lambda end: (found[end], end), reverse=True)
    centres = np.array([densest[0]])
    for end in densest[1:]:
        if _distances(np.array([end]), centres).min() > radius:
            centres = np.vstack([centres, end])
    distances = _distances(points, centres)
    return np.where(distances.min(axis=1) <= radius, distances.argmin(axis=1), -1)


def _climbed(points: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Where each point ends, `[n, k]`, and how many points `[n]` lie around it there."""
    at, moving = points.copy(), np.arange(len(points))
    around = np.zeros(len(points), dtype=np.int64)
    for _ in range(MOST_STEPS + 1):
        within = _distances(at[moving], points) <= radius
        around[moving] = within.sum(axis=1)
        means = np.array([points[row].mean(axis=0) for row in within])
        moved = np.linalg.norm(means - at[moving], axis=1)
        at[moving] = means
        moving = moving[moved > AT_REST * radius]
        if not len(moving):
            break
    return at, around


def _distances(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    return np.asarray(np.linalg.norm(some[:, None] - others[None], axis=2))
