"""Top-k: of a row only the numbers that are largest in size, and where they stand.

    C(p)_i = p_i for the k largest |p_i|, else 0;   k = share D, rounded, at least 1
    message: k float32 values, and their places: k of ceil(log2 D) bits or a bitmap of D bits,
             whichever is shorter (both sides know k and D, and so which it is)

||p - C(p)||^2 <= (1 - k/D) ||p||^2. Of equal sizes those that torch.topk takes are sent.

Sources: Stich, Cordonnier and Jaggi, "Sparsified SGD with Memory", NeurIPS 2018; Aji and Heafield,
"Sparse Communication for Distributed Gradient Descent", EMNLP 2017.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from fedexp.channel.compression import Compression, check_share, kept_numbers


@final
@dataclass(frozen=True)
class TopK(Compression):
    """The largest numbers of every row.

    Args:
        share: of the numbers of a row, above 0 and at most 1.
        error_feedback: whether a client sends later what it left out.

    >>> row = torch.tensor([0.5, -3.0, 1.0, 2.0])
    >>> TopK(share=0.5, error_feedback=True).decoded(row, np.random.Generator)
    tensor([ 0., -3.,  0.,  2.])
    """

    share: float
    error_feedback: bool

    def __post_init__(self) -> None:
        check_share(self.share)

    def decoded(self, row: Tensor, rng: np.random.Generator) -> Tensor:
        """The row `[D]` with zeros for what was left out; draws nothing."""
        places = row.abs().topk(kept_numbers(self.share, len(row)), sorted=False).indices
        sparse = torch.zeros_like(row)
        sparse[places] = row[places]
        return sparse

    def message_bits(self, d: int) -> int:
        """Values and places.

        >>> TopK(share=0.01, error_feedback=True).message_bits(1000)  # 10 (32 + 10)
        420
        """
        k = kept_numbers(self.share, d)
        return 32 * k + min(k * (d - 1).bit_length(), d)

    def as_read(self, row: Tensor) -> tuple[Tensor, Tensor]:
        """The numbers that are not 0."""
        return row, row != 0
