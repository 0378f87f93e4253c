"""How a model's probabilities compare with the truth, in counts: what its curves are drawn from.

Of every class the examples are put in order of the probability that the model gives it, and cut
into bins. A bin says where it begins, the mean of its probabilities, and how many of its examples
have the class and how many do not. Cumulated from the top these are the points of the ROC and of
the precision-recall curve; bin by bin, of the reliability diagram:

    TPR = positives above / positives,  FPR = negatives above / negatives,
    precision = positives above / examples above;  calibrated: positives / examples = mean

Half of the bins end at quantiles of the examples that have the class, half at quantiles of the
others, so that a rare class has as many points as a common one. No bin has fewer than LEAST
examples, unless there are no more. Where a bin begins is the probability of one example; whose it
is, is not written down.

The probability of the class that is answered, with "positive" for a right answer, is one row of
such bins more where examples have one class: the diagram of Guo et al., "On Calibration of Modern
Neural Networks", ICML 2017.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

LEAST = 5  # examples in a bin
MOST_ROWS = 4_000  # of all classes together, so that the file stays small
MOST_BINS, FEWEST_BINS = 100, 10  # of a class
ANSWER = "answer"  # what stands in the place of a class where the answer is judged


class Bin(NamedTuple):
    """Examples whose probability of a class lies between two thresholds."""

    of: str  # the number of the class, or ANSWER
    at_least: float  # the lowest probability in it
    mean: float
    positives: int  # examples that have the class; of ANSWER, that were answered rightly
    negatives: int


def thresholds(probabilities: np.ndarray, y: np.ndarray) -> list[Bin]:
    """The bins of all classes, from the highest probability down.

    Args:
        probabilities: `[n, classes]`.
        y: `[n]` the class, or `[n, classes]` of 0 and 1.

    Returns:
        Nothing for probabilities that are not finite (a model that diverged), and of two classes
        those of the second only, for the first says the same.

    >>> thresholds(np.array([[0.1, 0.9]] * 6 + [[0.8, 0.2]] * 6), np.array([1] * 6 + [0] * 6))[0]
    Bin(of='1', at_least=0.9, mean=0.9, positives=6, negatives=0)
    """
    if not np.isfinite(probabilities).all() or not len(y):
        return []
    classes = probabilities.shape[1]
    most = int(np.clip(MOST_ROWS // classes, FEWEST_BINS, MOST_BINS))
    judged = [1] if y.ndim == 1 and classes == 2 else range(min(classes, MOST_ROWS // most))
    found = [
        row
        for c in judged
        for row in _bins(str(c), probabilities[:, c], y == c if y.ndim == 1 else y[:, c] == 1, most)
    ]
    if y.ndim == 1 and classes > 2:
        right = probabilities.argmax(axis=1) == y
        found += _bins(ANSWER, probabilities.max(axis=1), right, most)
    return found


def _bins(of: str, scores: np.ndarray, positive: np.ndarray, most: int) -> Iterator[Bin]:
    order = np.argsort(-scores, kind="stable")
    scores, positive = scores[order], positive[order]
    ends = _ends(scores, positive, most)
    starts = np.array([0, *ends[:-1]])
    counts = np.diff([0, *ends])
    hits, sums = np.add.reduceat(positive.astype(np.int64), starts), np.add.reduceat(scores, starts)
    for end, count, hit, total in zip(ends, counts, hits, sums, strict=True):
        yield Bin(of, float(scores[end - 1]), float(total / count), int(hit), int(count - hit))


def _ends(scores: np.ndarray, positive: np.ndarray, most: int) -> list[int]:
    """Behind which of the examples, which come by falling score, a bin ends."""
    ends = np.concatenate([_quantiles(kind, most // 2) for kind in (positive, ~positive)])
    # Equal scores are told apart by no threshold.
    ends = np.unique(np.searchsorted(-scores, -scores[ends], side="right"))
    kept = [0]
    for end in ends.tolist():
        if end - kept[-1] >= LEAST:
            kept.append(end)
    if len(kept) > 1:
        kept.pop()  # what is left over belongs to the last
    return [*kept[1:], len(scores)]


def _quantiles(marked: np.ndarray, most: int) -> np.ndarray:
    """The places of about `most` of the marked examples, evenly spread; the last among them."""
    places = np.flatnonzero(marked)
    count = min(most, len(places))
    return places[np.arange(1, count + 1) * len(places) // max(count, 1) - 1]
