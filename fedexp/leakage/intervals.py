"""How sure a mean is: percentile bootstrap over targets, and permutations of two groups.

    bootstrap:    the quantiles (1 - level) / 2 and (1 + level) / 2 of the means of resamples, which
                  draw as many targets as there are, with replacement
    permutation:  the observed value less the quantiles of what chance alone gives

The second holds 0 just where a two-sided permutation test at 1 - level would not reject it.

Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 13 and 15; the
former by `scipy.stats.bootstrap`. Its default, BCa, is not defined where all resamples have one
mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

LEVEL = 0.95  # the share of intervals that hold the true mean
RESAMPLES = 9_999
BATCH = 2**22  # numbers resampled at once: bounds the memory, changes no answer

Values = Sequence[float] | np.ndarray | Tensor


class Interval(NamedTuple):
    """A mean and the ends of its interval."""

    mean: float
    low: float
    high: float

    def holds(self, value: float) -> bool:
        """Whether the interval does not rule out `value`; one of NaN rules out nothing."""
        return not (value < self.low or value > self.high)

    def __str__(self) -> str:
        """Two decimals, or what tells the ends apart.

        >>> str(Interval(0.5, 0.25, 0.75)), str(Interval(0.003, -0.001, 0.007))
        ('0.50 [0.25, 0.75]', '0.003 [-0.001, 0.007]')
        """
        places = 2 if not self.high - self.low < 0.05 else 3
        return f"{self.mean:.{places}f} [{self.low:.{places}f}, {self.high:.{places}f}]"


def mean_interval(values: Values, rng: np.random.Generator, level: float = LEVEL) -> Interval:
    """The mean of `values` `[n]` and its bootstrap interval.

    Equal values have an interval of no width, and a single value one of NaN: it says nothing of
    how others would fall out.

    Raises:
        ValueError: no values, or one that is not finite.

    >>> from fedexp.core.rng import generator
    >>> mean_interval([1.0, 1.0, 1.0], generator(0, "example"))
    Interval(mean=1.0, low=1.0, high=1.0)
    """
    from scipy.stats import bootstrap

    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or not len(sample) or not np.isfinite(sample).all():
        raise ValueError(f"needs one or more finite values, not {sample}")
    mean = float(sample.mean())
    if len(sample) == 1:
        return Interval(mean, float("nan"), float("nan"))
    if (sample == sample[0]).all():
        mean = float(sample[0])  # without the rounding of a sum
        return Interval(mean, mean, mean)
    found = bootstrap(
        (sample,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=max(1, BATCH // len(sample)),
        vectorized=True,
        confidence_level=level,
        method="percentile",
        rng=rng,
    ).confidence_interval
    return Interval(mean, float(found.low), float(found.high))


def paired_difference(
    a: Values, b: Values, rng: np.random.Generator, level: float = LEVEL
) -> Interval:
    """The mean of a - b, target by target, and its bootstrap interval.

    For what was measured twice on the same targets: what makes a target hard cancels out.

    Raises:
        ValueError: as `mean_interval`, and if there are not as many of one as of the other.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape:
        raise ValueError(f"pairs need as many of both, not {first.shape} and {second.shape}")
    return mean_interval(first - second, rng, level)


def permutation_interval(observed: float, null: Values, level: float = LEVEL) -> Interval:
    """The interval of a value, given those `[n]` of permutations under which it should be 0.

    Raises:
        ValueError: no permutations.
    """
    tails = [(1 - level) / 2, (1 + level) / 2]
    low, high = np.quantile(np.asarray(null, dtype=np.float64), tails)
    return Interval(observed, float(observed - high), float(observed - low))
