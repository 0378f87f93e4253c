"""The malicious clients' own data, for rounds without an attack.

An attack on data changes rows of the training part. Where not every round is attacked, the rows as
they were stand behind it once more, and each malicious client has a second shard of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from fedexp.core.examples import Split

Shards = tuple[np.ndarray, ...]


def with_own_data(
    poisoned: Split, own: Split, shards: Sequence[np.ndarray], malicious: np.ndarray
) -> tuple[Split, Shards, Mapping[int, int]]:
    """(examples, shards to stand behind those given, malicious client -> place among these).

    Args:
        poisoned: the training part in attacked rounds.
        own: the same rows in the others.
        shards: the clients' rows, in both.
        malicious: `[n_clients]` bool.
    """
    clients = np.flatnonzero(malicious).tolist()
    held = [np.asarray(shards[client]) for client in clients]
    ends = len(poisoned) + np.cumsum([len(rows) for rows in held])
    again = tuple(np.arange(end - len(rows), end) for rows, end in zip(held, ends, strict=True))
    copies = own.rows(torch.from_numpy(np.concatenate(held)))
    return poisoned.joined(copies), again, {client: i for i, client in enumerate(clients)}
