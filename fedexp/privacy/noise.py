"""Where the noise of a mechanism comes from, and how it gets into a vector.

`noise_seed` is a choice between two things that exclude each other. "task": from the run's seed, so
that a run can be repeated and resumed bit for bit; whoever knows the seed can take the noise away,
and the guarantee is nominal. "os": from 128 bits of the operating system's, new at every call and
kept nowhere.

Neither is a cryptographic generator, and noise in floating point leaks through its low bits
(Mironov, "On Significance of the Least Significant Bits for Differential Privacy", CCS 2012): this
is for measuring what privacy costs, not for keeping real people's secrets. A draw comes from 77
random bits, 53 of them for how far out it lies, because delta is about the tail, which the 24 bits
of a float32 generator cut off at 5.8 standard deviations. It is computed in float32, to which the
row that it is added to rounds it anyway.

A step of DP-SGD on a small model is mostly its noise. Box's and Muller's functions are vector
instructions, as NumPy's ziggurat is not, and in float32 half of the work of float64.
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
    """Draws standard normal numbers `[n]`, float32, two from every pair of uniform ones.

        z_1, z_2 = r cos(2 pi v), r sin(2 pi v),   r = sqrt(-2 ln(1 - u)),   u, v in [0, 1)

    u has 53 bits, v has 24. No draw is infinite: the largest, of probability 2^-53, is 8.57. An odd
    n leaves one number unused, so that draws depend on how many are asked for at once.

    Source: Box and Muller, "A Note on the Generation of Random Normal Deviates", Annals of
    Mathematical Statistics 29(2), 1958.

    >>> draws = gaussian(np.random.default_rng(0))(100_000)
    >>> bool(abs(draws.mean()) < 0.01), bool(abs(draws.std() - 1) < 0.01)
    (True, True)
    """

    def draw(n: int) -> np.ndarray:
        pairs = (n + 1) // 2
        inside = torch.from_numpy(rng.random(pairs)).neg_().add_(1)  # exact, and never 0
        radius = inside.float().log_().mul_(-2).sqrt_()
        angle = torch.from_numpy(rng.random(pairs, dtype=np.float32)).mul_(2 * math.pi)
        drawn = torch.empty(2 * pairs, dtype=torch.float32)
        torch.cos(angle, out=drawn[:pairs]).mul_(radius)
        torch.sin(angle, out=drawn[pairs:]).mul_(radius)
        return drawn[:n].numpy()

    return draw


def add_noise(vector: Tensor, scale: float, draw: Callable[[int], np.ndarray]) -> None:
    """Add `scale * draw(d)` to `vector` `[d]` in place, in chunks; nothing is drawn for 0."""
    if scale == 0:
        return
    for chunk in torch.split(vector, CHUNK):
        chunk.add_(torch.from_numpy(draw(len(chunk))).to(chunk), alpha=scale)
