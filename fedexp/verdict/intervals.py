"""How sure a figure of a site is: its patients, not its images, are what chance has drawn.

    share        Wilson's interval, with as many examples as would be as sure if each were of its
                 own patient: n_eff = p (1 - p) / (variance of p between patients)
    difference   of two shares on the same patients: Agresti and Min's, each discordant kind of pair
                 half an example more, with the n_eff of the differences
    any figure   quantiles of the figure over resamples, which draw as many patients as there are,
                 with replacement, and all examples of each; none where all
                 resamples agree

Where all examples agree, n_eff is the number of patients: of 13 patients who are all right, the
model may still be wrong about one in five.

Sources: Wilson, JASA 1927; Agresti and Min, Statistics in Medicine 2005; effective sizes: Kish,
"Survey Sampling", 1965, and Korn and Graubard, Survey Methodology 1998; resampling of whole
patients: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 8.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from fedexp.core.wilson import Z, wilson

LEVEL = 0.95
RESAMPLES = 1000
AT_ONCE = 2**23  # numbers resampled at once: bounds the memory, changes no answer


class Interval(NamedTuple):
    """A figure and the ends of its interval; NaN where nothing is known."""

    value: float
    low: float
    high: float


NOTHING = Interval(float("nan"), float("nan"), float("nan"))


def share(right: np.ndarray, patients: np.ndarray) -> Interval:
    """Of a share: `right` `[n]` in [0, 1], of `patients` `[n]`.

    >>> low, high = share(np.ones(13), np.arange(13))[1:]
    >>> round(low, 2), round(high, 2)
    (0.77, 1.0)
    """
    n, of = len(right), np.unique(patients, return_inverse=True)[1]
    m = int(of.max()) + 1 if n else 0
    if not n:
        return NOTHING
    p = float(right.mean())
    size = _effective(right - p, of, p * (1 - p))
    if m == 1:  # says nothing of how patients differ
        return Interval(p, 0.0, 1.0)
    low, high = wilson(np.array(p), np.array(size))
    return Interval(p, float(low), float(high))


def difference(ours: np.ndarray, theirs: np.ndarray, patients: np.ndarray) -> Interval:
    """Of the mean of `ours - theirs`, both `[n]` in [0, 1] about the same examples.

    >>> [round(x, 2) for x in difference(np.ones(20), np.ones(20), np.arange(20))]
    [0.0, -0.09, 0.09]
    """
    if not len(ours):
        return NOTHING
    gained = ours - theirs
    of = np.unique(patients, return_inverse=True)[1]
    mean = float(gained.mean())
    if not of.any():
        return Interval(mean, -1.0, 1.0)
    size = _effective(gained - mean, of, float(gained.var()))
    better = float(np.maximum(gained, 0).mean()) * size + 0.5
    worse = float(np.maximum(-gained, 0).mean()) * size + 0.5
    squares = float((gained**2).mean()) * size + 1.0
    centre = (better - worse) / (size + 2)
    half = Z * np.sqrt(max(squares - (better - worse) ** 2 / (size + 2), 0.0)) / (size + 2)
    return Interval(mean, max(-1.0, float(centre - half)), min(1.0, float(centre + half)))


def resampled(
    figures: Callable[[np.ndarray], Mapping[str, np.ndarray]],
    patients: np.ndarray,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> dict[str, Interval]:
    """Of any figures.

    Args:
        figures: from weights `[B, n]` to each figure `[B]`.
        patients: `[n]`, of whom each example is.
        rng: draws the resamples.
        resamples: how many.
    """
    n = len(patients)
    values = figures(np.ones((1, n)))
    of = np.unique(patients, return_inverse=True)[1]
    m = int(of.max()) + 1
    drawn: dict[str, list[np.ndarray]] = {name: [] for name in values}
    for start in range(0, resamples, step := max(1, AT_ONCE // max(n, 1))):
        count = min(step, resamples - start)
        weights = rng.multinomial(m, np.full(m, 1 / m), size=count)[:, of].astype(np.float64)
        for name, figure in figures(weights).items():
            drawn[name].append(figure)
    ends = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
    found = {}
    for name, value in values.items():
        defined = np.concatenate(drawn[name])
        defined = defined[~np.isnan(defined)]
        if np.isnan(value[0]) or m == 1 or not len(defined):
            found[name] = Interval(float(value[0]), float("nan"), float("nan"))
            continue
        low, high = (float(end) for end in np.quantile(defined, ends))
        # Where all resamples agree they say nothing: none can show what these patients lack.
        sure = high - low > 1e-12
        nothing = float("nan")
        found[name] = Interval(float(value[0]), *((low, high) if sure else (nothing, nothing)))
    return found


def _effective(residuals: np.ndarray, of: np.ndarray, variance: float) -> float:
    """How many independent examples would be as sure of the mean of residuals `[n]`."""
    n, m = len(residuals), int(of.max()) + 1
    sums = np.bincount(of, residuals)
    between = float((sums**2).sum()) / n**2 * m / max(m - 1, 1)
    if variance <= 1e-12 or between <= 1e-18:
        return float(m)
    # Never more than there are examples: patients who happen to differ evenly prove nothing.
    return min(float(n), variance / between)
