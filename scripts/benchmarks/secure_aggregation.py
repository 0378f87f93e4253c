"""One round of secure aggregation: seconds of a client and of the server, and bytes.

100 clients with rows of 200,000 numbers, everybody with everybody and with 40 neighbours, with and
without dropouts.
"""

from __future__ import annotations

import time

import numpy as np
import torch

from fedexp.channel.client import TURNS
from fedexp.channel.quantise import Quantiser
from fedexp.channel.secure_aggregation import SecureAggregation
from fedexp.core.types import Updates


def rows(quick: bool) -> list[dict[str, object]]:
    """One row for each graph and share of dropouts; `quick` has a tenth of the numbers."""
    n, d = (30, 20_000) if quick else (100, 200_000)
    matrix = torch.randn(n, d, generator=torch.Generator().manual_seed(0)) * 0.01
    updates = Updates(matrix, tuple(range(n)), torch.ones(n, dtype=torch.float64))
    return [
        _row(updates, neighbours, dropouts) for dropouts in (0.0, 0.1) for neighbours in (None, 40)
    ]


def _row(updates: Updates, neighbours: int | None, dropouts: float) -> dict[str, object]:
    n, d = updates.matrix.shape
    channel = SecureAggregation(
        encoder=Quantiser(bits=20, value_range=1.0),
        groups=1,
        threshold=0.5,
        neighbours=neighbours,
        ring_bits=32,
        weighting="uniform",
        max_examples=1,
        drop_before_advertising=0.0,
        drop_before_sharing=0.0,
        drop_before_masking=dropouts,
        drop_before_unmasking=0.0,
        record_views=False,
    )
    started = time.perf_counter()
    delivery = channel.transmit(updates, np.random.default_rng(0))
    seconds = time.perf_counter() - started
    if delivery.lost:
        raise RuntimeError(delivery.lost[0])
    clients = sum(delivery.seconds[stage] for stage in ("encode", *TURNS))
    return {
        "clients": n,
        "numbers": d,
        "masks with": "all" if neighbours is None else f"{neighbours} neighbours",
        "dropped": len(delivery.dropped),
        "round s": seconds,
        "one client ms (mean)": 1000 * clients / n,
        "server's sum s": delivery.seconds["sum"],
        "up MB": delivery.bytes_up / 1e6,
        "down MB": delivery.bytes_down / 1e6,
        "up / float32 rows": delivery.bytes_up / (4 * n * d),
    }
