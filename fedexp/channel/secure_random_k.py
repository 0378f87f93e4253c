"""Random-k behind secure aggregation: all clients send the same k places, and these are summed.

    places S of a round, |S| = k = share D, drawn from the round's seed, alike for all clients
    the protocol sums w_j delta_j[S] over the clients j of a group; the server makes of their mean m
                      x_i = (D / k) m_i at the places, else 0;   E x = the mean of all D numbers

A compressor can stand before a sum only if it is linear and the same for everybody. top_k has
places of each client's own, which the server would have to learn one client at a time; quantised
and sign have lengths of each client's own, and a sum of levels in different units is no level of
the sum. Places that all share are linear, and they say nothing of a row. What remains is the
masking protocol on k numbers in the place of D: fewer bytes, and less work for the masks.

There is no error feedback. A client that drops out does not know whether its row was in the sum, so
it does not know what it has left out; hence the unbiased scale.

Source: Konečný, McMahan, Yu, Richtárik, Suresh and Bacon, "Federated Learning: Strategies for
Improving Communication Efficiency", 2016, arXiv:1610.05492, section 2 (random mask, there one for
each client, here one for all, so that it can be summed); the sums are
`fedexp.channel.secure_aggregation`'s.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, final

import numpy as np
from torch import Tensor

from fedexp.channel.compression import check_share, kept_numbers, refuse_what_is_kept_in_full
from fedexp.channel.random_k import SEED_BITS, places_of
from fedexp.channel.ring import Ring
from fedexp.channel.secure_aggregation import SecureAggregation
from fedexp.core.protection import Combination
from fedexp.core.types import Delivery, Updates


@final
@dataclass(frozen=True)
class SecureRandomK(SecureAggregation):
    """Secure aggregation of a share of the numbers, at places that all clients have in common.

    Args:
        encoder: see `SecureAggregation`, as for all up to `max_exposure`.
        share: of the numbers of a row, above 0 and at most 1.
    """

    hides_rows: ClassVar[bool] = True  # of its own transport as well

    share: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share(self.share)

    def refuse(self, parts: Combination) -> None:
        """Raise InputError where a client keeps in full what the server would get in part."""
        refuse_what_is_kept_in_full(parts)

    def check(self, n: int, d: int) -> Ring:
        """As `SecureAggregation`, for rows of k numbers."""
        return super().check(n, kept_numbers(self.share, d))

    def transmit(self, updates: Updates, rng: np.random.Generator) -> Delivery:
        """The groups' means, with zeros for what nobody sent; the seed of the places goes down."""
        thin, places = self._thinned(updates, rng)
        delivery = super().transmit(thin, rng)
        return replace(
            delivery,
            updates=self._spread(delivery.updates, places, updates.matrix.shape[1]),
            bytes_down=delivery.bytes_down + len(updates) * SEED_BITS // 8,
        )

    def as_received(self, updates: Updates, rng: np.random.Generator) -> Updates:
        """The same without dropouts, rounding and masks."""
        thin, places = self._thinned(updates, rng)
        return self._spread(super().as_received(thin, rng), places, updates.matrix.shape[1])

    def as_read(self, row: Tensor) -> tuple[Tensor, Tensor]:
        """The numbers that are not 0, without the factor."""
        return row / self._factor(len(row)), row != 0

    def _thinned(self, updates: Updates, rng: np.random.Generator) -> tuple[Updates, Tensor]:
        places = places_of(updates.matrix.shape[1], self.share, rng).to(updates.matrix.device)
        return updates.with_matrix(updates.matrix[:, places]), places

    def _spread(self, sums: Updates, places: Tensor, d: int) -> Updates:
        matrix = sums.matrix.new_zeros(len(sums), d)
        matrix[:, places] = self._factor(d) * sums.matrix
        return sums.with_matrix(matrix)

    def _factor(self, d: int) -> float:
        return d / kept_numbers(self.share, d)
