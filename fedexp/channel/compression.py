"""What all compressing channels share: messages that lose something, and what becomes of the rest.

    p_k = delta_k + e_k            e_k: what client k's messages have left out so far (0 at first)
    the server gets C(p_k),        decoded: a row like any other, which rules and attackers see
    e_k <- p_k - C(p_k)            error feedback; without it e_k stays 0

Error feedback is a state of the client, which never leaves it. It needs a C that loses only a part
of the length of what it is given, ||p - C(p)||^2 <= (1 - a) ||p||^2; one that is right on average
and may lose more lets e_k grow without end, and is refused. What every client sends is one message,
a row `[D]` as one vector, malicious clients' rows too: the server could decode nothing else. A row
that is not finite arrives as it is, for the server to drop, and leaves e_k alone.

Compression is no protection. After noise it changes no promise (post-processing), and a server that
bounds every row itself bounds what it decoded.

Source: Karimireddy, Rebjock, Stich and Jaggi, "Error Feedback Fixes SignSGD and other Gradient
Compression Schemes", ICML 2019, algorithm 2 (there on gradients, here on updates).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal, final

import numpy as np
import torch
from torch import Tensor

from fedexp.core.checks import InputError, in_range, positive
from fedexp.core.protection import Combination
from fedexp.core.text import called
from fedexp.core.types import Delivery, State, Updates

Scaling = Literal["unbiased", "contracting"]
SCALINGS = ("unbiased", "contracting")


class Compression(ABC):
    """A row a client, decoded from a message that is shorter than the row."""

    sums: ClassVar[bool] = False
    a_client_a_row: ClassVar[bool] = True
    error_feedback: bool

    @abstractmethod
    def decoded(self, row: Tensor, rng: np.random.Generator) -> Tensor:
        """C(p) `[D]` of a finite row `[D]`: what the server makes of the message."""

    @abstractmethod
    def message_bits(self, d: int) -> int:
        """Of one client's message for a row of d numbers."""

    @abstractmethod
    def as_read(self, row: Tensor) -> tuple[Tensor, Tensor]:
        """What somebody who knows the compressor reads from a decoded row `[D]`.

        Returns:
            The numbers as they were sent `[D]`, and which of them were sent `[D]` bool.
        """

    @final
    def message_bytes(self, d: int) -> int:
        """Whole bytes of one client's message."""
        return -(-self.message_bits(d) // 8)

    @final
    def rows(self, n: int) -> int:
        """A row a client."""
        return n

    @final  # noqa: B027 - there is nothing to check
    def check(self, n: int, d: int) -> None:
        """Any clients can send any rows."""

    @final
    def refuse(self, parts: Combination) -> None:
        """Raise InputError where a client keeps in full what the server would get in part."""
        refuse_what_is_kept_in_full(parts)

    @final
    def carried(
        self, updates: Updates, kept: Sequence[State], rng: np.random.Generator
    ) -> tuple[Delivery, list[State]]:
        """One round's transport, and what each client keeps for the next time.

        Args:
            updates: the rows `[n, D]` to be sent.
            kept: by each of the clients; empty where it sends for the first time.
            rng: of the round; what is random about a message is drawn from it.
        """
        rows, left = torch.empty_like(updates.matrix), list(kept)
        for k, (row, before) in enumerate(zip(updates.matrix, kept, strict=True)):
            wanted = row + before["error"].to(row) if before else row
            rows[k] = wanted
            if not bool(wanted.isfinite().all()):
                continue
            rows[k] = self.decoded(wanted, rng)
            error = wanted - rows[k]
            if self.error_feedback and bool(error.isfinite().all()):
                left[k] = {"error": error}
        n, d = updates.matrix.shape
        return self._delivery(updates.with_matrix(rows), n * self.message_bytes(d)), left

    @final
    def transmit(self, updates: Updates, rng: np.random.Generator) -> Delivery:
        """The transport of clients that send for the first time."""
        return self.carried(updates, [{}] * len(updates), rng)[0]

    def _delivery(self, arrived: Updates, bytes_up: int) -> Delivery:
        return Delivery(
            updates=arrived,
            members=tuple((client,) for client in arrived.client_ids),
            dropped=(),
            lost=(),
            bytes_up=bytes_up,
            bytes_down=0,
            seconds={},
            clipped=0,
        )


def refuse_what_is_kept_in_full(parts: Combination) -> None:
    """Raise InputError for an algorithm whose clients keep what they sent beside the delta."""
    for sent in parts.algorithm.sends:
        raise InputError(
            f"clients keep {sent.name!r} as they sent it, and the server would get another one out "
            "of the compressed message; use algorithm=fedavg, or channel=plain",
            "algorithm",
            called(parts.algorithm),
        )


def refuse_growing_errors(error_feedback: bool, scaling: Scaling) -> None:
    """Raise InputError for what is right on average, and loses more than it is given."""
    if error_feedback and scaling == "unbiased":
        raise InputError(
            "needs messages that lose a part of the row's length at most, and with "
            "channel.scaling=unbiased they may lose more: what was left out would grow without "
            "end; use channel.scaling=contracting",
            "error_feedback",
            error_feedback,
        )


def check_share(share: float) -> None:
    """Raise InputError unless it lies above 0, and not above 1."""
    in_range(0, 1, share=share)
    positive(share=share)


def kept_numbers(share: float, d: int) -> int:
    """k: a share of d numbers, at least one.

    >>> kept_numbers(0.1, 25), kept_numbers(0.001, 25), kept_numbers(1.0, 25)
    (2, 1, 25)
    """
    return max(1, round(share * d))


def in_blocks(row: Tensor, block: int | None) -> Tensor:
    """A row `[D]` as `[ceil(D / block), block]`, zeros at the end; one block where there is none.

    >>> in_blocks(torch.tensor([1.0, 2.0, 3.0]), 2).tolist()
    [[1.0, 2.0], [3.0, 0.0]]
    """
    size = len(row) if block is None else block
    missing = -len(row) % size
    return torch.nn.functional.pad(row, (0, missing)).view(-1, size)
