"""What a shared model is worth to every client by its mix of classes, from what was recorded.

    own_mix_accuracy of client k = sum over c of (share of class c in k's examples) (recall of c)

over the classes that the test part has (`fedexp.core.mixes`). The recalls are in the record once an
evaluation (scope `recall`), the counts in partition.json; the estimates of all clients would be
most of a record, and nothing that these do not say.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fedexp.core.mixes import expected_in
from fedexp.run_folder.client_rows import Table

RECALL, PART, METRIC = "recall", "test", "own_mix_accuracy"
MOST_ROWS = 1_000_000  # beyond these, of the last evaluation only


def estimates(recalls: Mapping[int, Mapping[str, float]], counts: np.ndarray) -> list[Table]:
    """One table an evaluation; NaN for who has no example of a class that was measured.

    Args:
        recalls: by round, the recall of every class by its number, NaN where the test part has
            none; a round that lacks one is left out.
        counts: `[n_clients, classes]` examples of each class.

    >>> (table,) = estimates({3: {"0": 1.0, "1": 0.5}}, np.array([[2, 2], [0, 4]]))
    >>> table.round, table.columns[PART, METRIC].tolist()
    (3, [0.75, 0.5])
    """
    n, classes = counts.shape
    names = [str(c) for c in range(classes)]
    whole = sorted(round for round, of in recalls.items() if of.keys() >= set(names))
    if len(whole) * n > MOST_ROWS:
        whole = whole[-1:]
    mixes = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    vectors = {round: np.array([recalls[round][c] for c in names]) for round in whole}
    return [
        Table(round, np.arange(n), {(PART, METRIC): expected_in(mixes, vector)})
        for round, vector in vectors.items()
    ]
