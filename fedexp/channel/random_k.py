"""Random-k: of a row k numbers at random places, which both sides draw from a seed.

    unbiased:     C(p)_i = (D / k) p_i at the k places, else 0; E C(p) = p
    contracting:  C(p)_i = p_i at the k places, else 0;         E ||p - C(p)||^2 = (1 - k/D) ||p||^2
    k = share D, rounded, at least 1
    message: k float32 values and the 8 bytes of the seed that the places come from

The places say nothing of the row. Error feedback needs the contracting scale: the unbiased one
loses (D/k - 1) ||p||^2 on average, more than it is given.

Source: Stich, Cordonnier and Jaggi, "Sparsified SGD with Memory", NeurIPS 2018, definition 2.1
(contracting); Wangni, Wang, Liu and Zhang, "Gradient Sparsification for Communication-Efficient
Distributed Optimization", NeurIPS 2018 (unbiased).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from fedexp.channel.compression import (
    SCALINGS,
    Compression,
    Scaling,
    check_share,
    kept_numbers,
    refuse_growing_errors,
)
from fedexp.core.checks import one_of
from fedexp.core.rng import generator

SEED_BITS = 64


@final
@dataclass(frozen=True)
class RandomK(Compression):
    """Numbers at random places of every row.

    Args:
        share: of the numbers of a row, above 0 and at most 1.
        scaling: "unbiased" or "contracting".
        error_feedback: whether a client sends later what it left out.
    """

    share: float
    scaling: Scaling
    error_feedback: bool

    def __post_init__(self) -> None:
        check_share(self.share)
        one_of(SCALINGS, scaling=self.scaling)
        refuse_growing_errors(self.error_feedback, self.scaling)

    def decoded(self, row: Tensor, rng: np.random.Generator) -> Tensor:
        """The row `[D]` with zeros for what was left out."""
        d = len(row)
        places = places_of(d, self.share, rng).to(row.device)
        sparse = torch.zeros_like(row)
        sparse[places] = self._factor(d) * row[places]
        return sparse

    def message_bits(self, d: int) -> int:
        """Values and seed.

        >>> RandomK(share=0.01, scaling="unbiased", error_feedback=False).message_bits(1000)
        384
        """
        return 32 * kept_numbers(self.share, d) + SEED_BITS

    def as_read(self, row: Tensor) -> tuple[Tensor, Tensor]:
        """The numbers that are not 0, without the factor."""
        return row / self._factor(len(row)), row != 0

    def _factor(self, d: int) -> float:
        return d / kept_numbers(self.share, d) if self.scaling == "unbiased" else 1.0


def places_of(d: int, share: float, rng: np.random.Generator) -> Tensor:
    """The places `[k]` int64 of a message for d numbers, from a seed that is drawn from `rng`."""
    seed = int(rng.integers(0, 2**SEED_BITS, dtype=np.uint64))
    of_message = generator(seed, "places")
    drawn = of_message.choice(d, kept_numbers(share, d), replace=False, shuffle=False)
    return torch.from_numpy(drawn)
