"""Where the noise of a mechanism comes from, and how it gets into a vector.

`noise_seed` is a choice between two things that exclude each other. "task": from the run's seed, so
that a run can be repeated and resumed bit for bit; whoever knows the seed can take the noise away,
and the guarantee is nominal. "os": from 128 bits of the operating system's, new at every call and
kept nowhere.

Neither is a cryptographic generator, and noise in floating point leaks through its low bits
(Mironov, "On Significance of the Least Significant Bits for Differential Privacy", CCS 2012): this
is for measuring what privacy costs, not for keeping real people's secrets. The draws are float64,
because delta is about the tail, where float32 draws have few values.

A step of DP-SGD on a small model is mostly its noise. To invert the normal distribution function,
which vector instructions can do, takes half of the time of NumPy's ziggurat, which they cannot.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fedexp.core.rng import generator

NoiseSeed = Literal["task", "os"]
NOISE_SEEDS: tuple[NoiseSeed, ...] = ("task", "os")

CHUNK = 65_536


def noise_streams(
    noise_seed: NoiseSeed, rng: np.random.Generator
) -> Callable[..., np.random.Generator]:
    """Generators by purpose and ids, for one call of a mechanism.

    With "task" a stream depends on `rng`, its purpose and its ids, and on no other stream drawn.

    >>> rng = np.random.default_rng
    >>> one, other = noise_streams("task", rng(0)), noise_streams("task", rng(0))
    >>> one("client", 7).normal() == other("client", 7).normal() != other("client", 8).normal()
    True
    """
    entropy = int.from_bytes(os.urandom(16) if noise_seed == "os" else rng.bytes(16), "little")
    return lambda purpose, *ids: generator(entropy, purpose, *ids)


def gaussian(rng: np.random.Generator) -> Callable[[int], np.ndarray]:
    """Draws standard normal numbers `[n]`, float64, one from each number that `rng` is asked for.

        z = sqrt(2) erfinv((2 k + 1) / 2^53 - 1),   k from 0 to 2^53 - 1, all as probable

    The argument is exact, and as often negative as positive; its ends lie inside (-1, 1), so that
    no draw is infinite: the largest, of probability 2^-53, is 8.29.

    Source: inversion, Devroye, "Non-Uniform Random Variate Generation", 1986, chapter II.2.

    >>> draws = gaussian(np.random.default_rng(0))(100_000)
    >>> bool(abs(draws.mean()) < 0.01), bool(abs(draws.std() - 1) < 0.01)
    (True, True)
    """

    def draw(n: int) -> np.ndarray:
        shares = torch.from_numpy(rng.random(n))  # k / 2^53
        between = shares.mul_(2).sub_(1 - 2**-53)
        return between.erfinv_().mul_(math.sqrt(2)).numpy()

    return draw


def add_noise(vector: Tensor, scale: float, draw: Callable[[int], np.ndarray]) -> None:
    """Add `scale * draw(d)` to `vector` `[d]` in place, in chunks; nothing is drawn for 0."""
    if scale == 0:
        return
    for chunk in torch.split(vector, CHUNK):
        chunk += torch.from_numpy(scale * draw(len(chunk))).to(chunk)
