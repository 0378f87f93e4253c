"""What is to be expected of examples that come in another mix of classes than those measured.

    expected = sum over c of (share of c) (recall of c),  over the classes that were measured,
    whose shares are scaled up to 1 where others have some

A class without an example to measure on says nothing, good or bad. `in_mix` of
`fedexp.federation.own_patients` draws rows by the same rule.
"""

from __future__ import annotations

import numpy as np


def expected_in(mixes: np.ndarray, recalls: np.ndarray) -> np.ndarray:
    """The accuracy to be expected in each mix `[k]`; NaN where nothing of it was measured.

    Args:
        mixes: `[k, classes]` shares of the classes.
        recalls: `[classes]`, NaN where there was no example.

    >>> mixes = np.array([[0.5, 0.25, 0.25], [0.0, 0.0, 1.0]])
    >>> expected_in(mixes, np.array([1.0, 0.5, np.nan])).round(4).tolist()
    [0.8333, nan]
    """
    measured = ~np.isnan(recalls)
    shares = np.where(measured, mixes, 0.0)
    expected = (shares * np.where(measured, recalls, 0.0)).sum(axis=1)
    left = shares.sum(axis=1)
    # Where nothing is missing nothing is divided: shares add up to 1 only up to rounding.
    whole = np.where((mixes > shares).any(axis=1), left, 1.0)
    return np.asarray(np.where(left > 0, expected / np.where(left > 0, whole, 1.0), np.nan))
