"""What goes wrong in a run of the protocol. Both end it: nothing is revealed after either."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class ProtocolError(Exception):
    """A message that no honest party sends: tampered with, repeated, or asked for too much."""


class TooFewClients(ProtocolError):
    """So many clients left that the sum could not be unmasked, or would hide too little."""


@contextmanager
def blamed_on(client: int) -> Iterator[None]:
    """Name the client whose messages are at work, where they turn out to be no honest party's."""
    try:
        yield
    except TooFewClients:
        raise
    except ProtocolError as error:
        raise ProtocolError(f"client {client}: {error}") from error
