"""The area under the ROC curve of scores, by ranks: Mann and Whitney's statistic.

    AUC = (sum of the positives' ranks - p (p + 1) / 2) / (p q),    p positives, q negatives

Hanley and McNeil, Radiology 143, 1982. scikit-learn has it, and takes a second to be imported,
which is as long as all pictures of a small run.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd


def area_under_curve(positive: np.ndarray, scores: np.ndarray) -> float:
    """The chance that a positive outscores a negative; NaN if one kind lacks.

    Args:
        positive: `[n]` bool.
        scores: `[n]`, of which those that are NaN are left out; ties count half.

    >>> area_under_curve(np.array([True, False, False]), np.array([np.inf, 1.0, 2.0]))
    1.0
    """
    known = ~np.isnan(scores)
    ranks, of_positive = pd.Series(scores[known]).rank().to_numpy(), positive[known]
    p, q = int(of_positive.sum()), int((~of_positive).sum())
    if not p or not q:
        return math.nan
    return float((ranks[of_positive].sum() - p * (p + 1) / 2) / (p * q))
