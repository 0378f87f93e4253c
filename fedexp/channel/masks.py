"""Masks: a key's AES-256 keystream in counter mode, read as uniform numbers of the ring.

    masked_u = x_u + stream(own_u) + sum_{v > u} stream(key_uv) - sum_{v < u} stream(key_uv)

What two clients agree on cancels in the sum of both; what is left are the clients' own masks. One
key masks one row once, so a counter that starts at zero is right.

The streams of all keys are added up by all cores, and chunk by chunk, so that the sum and what is
added to it stay in the cache; whole numbers that wrap around have no order to be added in. AES is
what processors have instructions for: twice as fast as ChaCha20 where they do.

Source: FIPS 197 (AES), NIST SP 800-38A (counter mode). A generator such as MT19937 must not stand
in its place: from some of its output the rest can be computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fedexp.channel.ring import Numbers
from fedexp.core.cores import cores_to_spare

Mask = tuple[bytes, Literal[1, -1]]
"""A key of 32 bytes, and whether its stream is added or taken away."""

CHUNK_BYTES = 2**19  # stays in the cache until it is added; shorter ones have threads wait
WORTH_A_THREAD = 2**22  # bytes of streams: below, to start threads takes longer
_ZEROS = bytes(CHUNK_BYTES)
_START = bytes(16)


def add_masks(row: Numbers, masks: Sequence[Mask]) -> None:
    """Add the keys' streams to `row` `[d]` (uint32 or uint64) in place, or take them away.

    >>> row = np.arange(5, dtype=np.uint32)
    >>> add_masks(row, [(bytes(32), 1)])
    >>> add_masks(row, [(bytes(32), -1)])
    >>> row
    array([0, 1, 2, 3, 4], dtype=uint32)
    """
    threads = min(cores_to_spare(), len(masks))
    if threads <= 1 or row.nbytes * len(masks) < WORTH_A_THREAD:
        _add(row, masks)
        return
    parts = [np.zeros_like(row) for _ in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(_add, parts, [masks[first::threads] for first in range(threads)]))
    for part in parts:
        row += part


def _add(row: Numbers, masks: Sequence[Mask]) -> None:
    streams = [
        (Cipher(algorithms.AES(key), modes.CTR(_START)).encryptor(), sign) for key, sign in masks
    ]
    buffer = np.empty(CHUNK_BYTES // row.itemsize, row.dtype)
    for start in range(0, len(row), len(buffer)):
        part = row[start : start + len(buffer)]
        mask = buffer[: len(part)]
        zeros, written = memoryview(_ZEROS)[: mask.nbytes], mask.data.cast("B")
        for stream, sign in streams:
            stream.update_into(zeros, written)
            (np.add if sign == 1 else np.subtract)(part, mask, out=part)


def pair_sign(client: int, other: int) -> Literal[1, -1]:
    """+1 in one of the two clients of a pair and -1 in the other."""
    return 1 if client < other else -1
