"""Malicious clients on top of the honest ones, who keep all the data.

Drawn among the clients, the adversary takes its clients' data away from the honest: with more of
them the training part shrinks, and the attack looks stronger than it is. In the experiments of
Karimireddy, He and Jaggi, "Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing", ICLR
2022, and in ByzFL, the honest clients hold the whole training part, whatever the adversary does.

A client on top trains as any other does (its attack starts from that), on as many examples as an
honest client holds on average, drawn from all that the honest hold. They are copies, as rows of
their own behind the training part: what an attack does to them happens to nobody else's. They are
in no partition document, have no patients of their own, and count in a round as any client does.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from fedexp.core.partition import Partition
from fedexp.core.rng import generator


def with_extra_clients(honest: Partition, extra: int, seed: int) -> Partition:
    """The partition with `extra` clients behind the honest ones, and their rows behind `train`."""
    if not extra:
        return honest
    held = np.concatenate(honest.shards)
    size = max(1, round(len(held) / len(honest.shards)))
    train, shards = honest.train, list(honest.shards)
    for k in range(extra):
        copied = generator(seed, "extra_client", k).choice(held, size, replace=False)
        shards.append(np.arange(len(train), len(train) + size, dtype=np.int64))
        train = train.joined(honest.train.rows(torch.from_numpy(np.sort(copied))))
    return replace(honest, train=train, shards=tuple(shards), names=(), own=None)
