"""A partition in plain numbers: what partition.json holds and a plot of it reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fedexp.core.partition import Partition
from fedexp.core.protocols import Task
from fedexp.core.shards import are_listed, sizes_of


def partition_document(
    partition: Partition, class_names: Sequence[str], task: Task
) -> dict[str, Any]:
    """Who holds what, as JSON can hold it.

    Args:
        partition: who holds what.
        class_names: one name a class (or label), in order.
        task: what labels mean.

    Returns:
        `n_clients`; `names` of the clients, if they have any; `class_names`; `held`, how many
        examples they have together; and, unless `clients` says "too many to list", `sizes`
        `[n_clients]`; `counts` `[n_clients][n_classes]` examples of each class (or with each
        label); `left_out` examples that nobody holds; `examples_changed`, where the clients see
        other examples than the collection has (`feature`); `indices` `[n_clients][size]` rows of
        the training part, ascending; `hash`, see `fedexp.core.shards.partition_hash`; and
        `skew`, three measures:
        `mean_total_variation_distance` 0 to 1 and `mean_effective_classes` 1 to n_classes (see
        `label_skew`), and `size_coefficient_of_variation`, standard deviation over mean, 0 where
        all are equal.
    """
    counts = partition.label_counts(len(class_names), task)
    sizes = sizes_of(partition.shards)
    about = {
        "n_clients": len(partition.shards),
        **({"names": list(partition.names)} if partition.names else {}),
        "class_names": [str(name) for name in class_names],
        "held": int(sizes.sum()),
        "left_out": len(partition.train) - int(sizes.sum()),
        **({"examples_changed": True} if partition.changed else {}),
        "hash": partition.hash,
    }
    spread = {"size_coefficient_of_variation": float(sizes.std() / sizes.mean())}
    if not are_listed(partition.shards):
        return {**about, "clients": "too many to list", "skew": spread}
    total_variation, effective_classes = label_skew(counts)
    return {
        **about,
        "sizes": sizes.tolist(),
        "counts": counts.tolist(),
        "indices": [shard.tolist() for shard in partition.shards],
        "skew": {
            "mean_total_variation_distance": total_variation,
            "mean_effective_classes": effective_classes,
            **spread,
        },
    }


def label_skew(counts: np.ndarray) -> tuple[float, float]:
    """How far the label mixes q_k of the clients are from the mix p of all that they hold.

    Args:
        counts: `[n_clients, n_classes]` examples of each class. A client without any, which
            takes labels of which an example may have none, has no mix and is not counted.

    Returns:
        The mean over the clients, each counted once, of the total variation distance
        1/2 sum_c |q_k[c] - p[c]|, and of the effective number of classes exp(entropy of q_k).

    >>> label_skew(np.array([[4, 0], [0, 4]]))  # one class each, of two
    (0.5, 1.0)
    >>> total_variation, classes = label_skew(np.array([[2, 2], [1, 1]]))
    >>> total_variation, round(classes, 9)
    (0.0, 2.0)
    """
    counts = counts[counts.any(axis=1)]
    if not len(counts):
        return 0.0, 0.0
    mix = counts / counts.sum(axis=1, keepdims=True)
    overall = counts.sum(axis=0) / counts.sum()
    total_variation = np.abs(mix - overall).sum(axis=1) / 2
    # 0 log 0 is 0: where the mix is 0, take the logarithm of 1 instead.
    entropy = -(mix * np.log(np.where(mix > 0, mix, 1))).sum(axis=1)
    return float(total_variation.mean()), float(np.exp(entropy).mean())
