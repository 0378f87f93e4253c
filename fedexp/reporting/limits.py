"""The part of an axis of figures on which the difference that matters can be seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

_OF_THE_START = 0.1  # the share of the evaluations that is not looked at
_MARGIN = 0.06  # of the range, at either end
_SMALLEST = 0.02  # range, of the largest value: below, noise would look like a difference


def limits_of_interest(curves: Sequence[pd.Series[float]]) -> tuple[float, float]:
    """Where an axis of `curves` begins and ends: around what they measure after their start.

    Every run climbs out of chance; an axis that begins there leaves the last rounds, in which runs
    differ, a few pixels. So the first tenth of the evaluations decides nothing, if there are ten.

    >>> low, high = limits_of_interest([pd.Series([0.1] + 9 * [0.9])])
    >>> 0.85 < low < 0.9 < high
    True
    """
    later = [curve.iloc[int(_OF_THE_START * len(curve)) :] for curve in curves]
    values = np.concatenate([curve.to_numpy(dtype=np.float64) for curve in later])
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    least = _SMALLEST * (max(abs(low), abs(high)) or 1)
    middle, half = (low + high) / 2, max(high - low, least) / 2 * (1 + 2 * _MARGIN)
    return middle - half, middle + half
