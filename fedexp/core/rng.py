"""Where all randomness comes from: one stream a purpose, keyed, never a shared generator.

A stream is named by (seed, purpose, ids), for example (0, "client", round, client). So the number
of workers, the order in which they finish and the round from which a run is resumed change nothing,
and two rules or attacks are compared on the same shards, cohorts and initial weights.

Source: numpy.random.SeedSequence, spawn keys (O'Neill's seed_seq, https://www.pcg-random.org).
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def _sequence(seed: int, purpose: str, ids: tuple[int, ...]) -> np.random.SeedSequence:
    # crc32 rather than hash(): Python salts hash() anew in every process.
    return np.random.SeedSequence(entropy=seed, spawn_key=(zlib.crc32(purpose.encode()), *ids))


def seed_for(seed: int, purpose: str, *ids: int) -> int:
    """A 63-bit seed for the stream (seed, purpose, ids).

    >>> seed_for(0, "client", 3, 7) == seed_for(0, "client", 3, 7)
    True
    >>> seed_for(0, "client", 3, 7) == seed_for(0, "client", 7, 3)
    False
    """
    return int(_sequence(seed, purpose, ids).generate_state(1, np.uint64)[0] >> np.uint64(1))


def generator(seed: int, purpose: str, *ids: int) -> np.random.Generator:
    """A NumPy generator for the stream (seed, purpose, ids)."""
    return np.random.Generator(np.random.PCG64(_sequence(seed, purpose, ids)))


def torch_generator(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator of torch's, by default on the CPU, that starts at `seed` (see `seed_for`)."""
    return torch.Generator(device).manual_seed(seed)


def legacy_generator(seed: int) -> np.random.RandomState:
    """NumPy's generator of old: for parts of data that were drawn with it and are to stay so."""
    return np.random.RandomState(seed)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Let what draws from torch's global generator (dropout, initialisation) draw from `seed`.

    The generator is put back afterwards. Written out because `torch.manual_seed` takes over a
    millisecond where a build of torch for GPUs runs without one, as long as a small client's round.
    """
    generators = [torch.default_generator]
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        generators.append(torch.cuda.default_generators[index])
    before = [g.get_state() for g in generators]
    for g in generators:
        g.manual_seed(seed)
    try:
        yield
    finally:
        for g, state in zip(generators, before, strict=True):
            g.set_state(state)


@contextmanager
def lent(seed: int, device: torch.device) -> Iterator[None]:
    """As `seeded`, with the global generators of Python and NumPy, which are put back too.

    No part of ours draws from these. Somebody's own might, and the same seed is to give the same
    bits there, too.
    """
    of_python, of_numpy = random.getstate(), np.random.get_state()
    try:
        with seeded(seed, device):
            start_globals(seed)
            yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)


def start_globals(seed: int) -> None:
    """Python's and NumPy's global generators start at `seed`, inside `lent`.

    For every client, where putting them back would take as long as a small client's round.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)  # all that it takes
