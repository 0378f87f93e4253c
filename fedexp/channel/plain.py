"""The plain channel: the server sees every client's row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np

from fedexp.core.types import Delivery, Updates


@final
@dataclass(frozen=True)
class Plain:
    """Hands on the rows as they are; nobody drops out."""

    sums: ClassVar[bool] = False
    a_client_a_row: ClassVar[bool] = True
    does_nothing: ClassVar[bool] = True

    def rows(self, n: int) -> int:
        """A row a client."""
        return n

    def check(self, n: int, d: int) -> None:
        """Any clients can send any rows."""

    def transmit(self, updates: Updates, rng: np.random.Generator) -> Delivery:
        """The same `updates`; the rows' bytes are counted, headers are not."""
        return Delivery(
            updates=updates,
            members=tuple((client,) for client in updates.client_ids),
            dropped=(),
            lost=(),
            bytes_up=updates.matrix.numel() * updates.matrix.element_size(),
            bytes_down=0,
            seconds={},
            clipped=0,
        )
