"""How sure a mean is: bootstrap for measurements, exact for shares, permutations of two groups.

    bootstrap:    the quantiles (1 - level) / 2 and (1 + level) / 2 of the means of resamples, which
                  draw as many targets as there are, with replacement
    share:        of k successes in n, from Beta(k, n - k + 1) at (1 - level) / 2
                  to Beta(k + 1, n - k) at (1 + level) / 2
    permutation:  the observed value less the quantiles of what chance alone gives

Resamples of 0 successes in 13 are all 0, and say that the share is; the exact interval ends at
0.25. The last holds 0 just where a two-sided permutation test at 1 - level would not reject it.

Targets that were seen in one observation (images of one batch, updates in one sum) stand or fall
together. Then whole observations are resampled, and a share counts as many targets as would be as
sure if they were independent: n p (1 - p) over its variance between observations, or one an
observation where all or none succeed.

Sources: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 13 and 15, the
former by `scipy.stats.bootstrap` (whose default, BCa, is not defined where all resamples have one
mean); Clopper and Pearson, "The use of confidence or fiducial limits", Biometrika 1934; for
observations, Korn and Graubard, "Confidence intervals for proportions with small expected number
of positive counts estimated from survey data", Survey Methodology 1998.
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


def mean_interval(
    values: Values,
    rng: np.random.Generator,
    level: float = LEVEL,
    observations: Values | None = None,
) -> Interval:
    """The mean of `values` `[n]` and its interval: that of a share where all are 0 or 1.

    Equal measurements have an interval of no width, and a single value one of NaN: it says nothing
    of how others would fall out. The same goes for values of a single observation.

    Args:
        values: `[n]`.
        rng: draws the resamples.
        level: of the interval.
        observations: `[n]`, which observation each value is from; None: each from its own.

    Raises:
        ValueError: no values, one that is not finite, or not as many observations.

    >>> from fedexp.core.rng import generator
    >>> mean_interval([2.0, 2.0, 2.0], generator(0, "example"))
    Interval(mean=2.0, low=2.0, high=2.0)
    """
    from scipy.stats import bootstrap

    sample, seen_in = _checked(values, observations)
    mean = float(sample.mean())
    sums, sizes = np.bincount(seen_in, sample), np.bincount(seen_in)
    if len(sizes) == 1:
        return Interval(mean, float("nan"), float("nan"))
    if _is_share(sample):
        return share_interval(sample, level, observations)
    if (sample == sample[0]).all():
        mean = float(sample[0])  # without the rounding of a sum
        return Interval(mean, mean, mean)
    found = bootstrap(
        (sums, sizes),
        lambda sums, sizes, axis: sums.sum(axis=axis) / sizes.sum(axis=axis),
        paired=True,
        n_resamples=RESAMPLES,
        batch=max(1, BATCH // len(sizes)),
        vectorized=True,
        confidence_level=level,
        method="percentile",
        rng=rng,
    ).confidence_interval
    return Interval(mean, float(found.low), float(found.high))


def share_interval(
    values: Values, level: float = LEVEL, observations: Values | None = None
) -> Interval:
    """The share of ones among `values` `[n]`, each 0 or 1, and its exact interval.

    Args:
        values: `[n]`.
        level: of the interval.
        observations: see `mean_interval`.

    Raises:
        ValueError: as `mean_interval`.

    >>> print(share_interval([0.0] * 13), share_interval([1.0] * 50))
    0.00 [0.00, 0.25] 1.00 [0.93, 1.00]
    """
    from scipy.stats import beta, t

    sample, seen_in = _checked(values, observations)
    share, n = float(sample.mean()), float(len(sample))
    sums, sizes = np.bincount(seen_in, sample), np.bincount(seen_in)
    seen = len(sizes)
    if seen == 1:
        n = 1.0
    elif seen < n:
        # The variance of a ratio of sums over observations, linearised.
        variance = seen / (seen - 1) * float(((sums - share * sizes) ** 2).sum()) / n**2
        n = seen if variance == 0 else min(n, share * (1 - share) / variance)
        upper = (1 + level) / 2
        n *= float(t.ppf(upper, len(sample) - 1) / t.ppf(upper, seen - 1)) ** 2
    k = share * n
    low = float(beta.ppf((1 - level) / 2, k, n - k + 1)) if share > 0 else 0.0
    high = float(beta.ppf((1 + level) / 2, k + 1, n - k)) if share < 1 else 1.0
    return Interval(share, low, high)


def paired_difference(
    a: Values,
    b: Values,
    rng: np.random.Generator,
    level: float = LEVEL,
    observations: Values | None = None,
) -> Interval:
    """The mean of a - b, target by target, and its interval.

    For what was measured twice on the same targets: what makes a target hard cancels out. Of two
    shares, from the exact intervals of the targets that only one and only the other got, each at
    half the doubt: no narrower than it should be.

    Raises:
        ValueError: as `mean_interval`, and if there are not as many of one as of the other.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape:
        raise ValueError(f"pairs need as many of both, not {first.shape} and {second.shape}")
    if not (_is_share(first) and _is_share(second)):
        return mean_interval(first - second, rng, level, observations)
    surer = (1 + level) / 2
    only_first = share_interval(first > second, surer, observations)
    only_second = share_interval(second > first, surer, observations)
    return Interval(
        float((first - second).mean()),
        only_first.low - only_second.high,
        only_first.high - only_second.low,
    )


def permutation_interval(observed: float, null: Values, level: float = LEVEL) -> Interval:
    """The interval of a value, given those `[n]` of permutations under which it should be 0.

    Raises:
        ValueError: no permutations.
    """
    tails = [(1 - level) / 2, (1 + level) / 2]
    low, high = np.quantile(np.asarray(null, dtype=np.float64), tails)
    return Interval(observed, float(observed - high), float(observed - low))


def _is_share(sample: np.ndarray) -> bool:
    return bool(np.isin(sample, (0, 1)).all())


def _checked(values: Values, observations: Values | None) -> tuple[np.ndarray, np.ndarray]:
    """The values `[n]` float64, and the number from 0 on of the observation that each is from."""
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or not len(sample) or not np.isfinite(sample).all():
        raise ValueError(f"needs one or more finite values, not {sample}")
    if observations is None:
        return sample, np.arange(len(sample))
    seen_in = np.unique(np.asarray(observations), return_inverse=True)[1]
    if seen_in.shape != sample.shape:
        raise ValueError(f"{len(sample)} values need as many observations, not {len(seen_in)}")
    return sample, seen_in
