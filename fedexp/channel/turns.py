"""Where the clients of a group take their turns: in this process, or dealt to copies of it.

A client reads bytes and writes bytes, so it does not matter which. Key agreements are most of the
time that is not spent on masks, and hold Python's interpreter: threads do not speed them up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Protocol, final

from fedexp.channel.client import Client
from fedexp.channel.graph import Graph
from fedexp.channel.messages import ForwardedShares, Roster, UnmaskRequest
from fedexp.channel.ring import Numbers, Ring
from fedexp.core.copies import Copy
from fedexp.core.cores import can_fork, cores_to_spare

AGREEMENTS = 2**19  # bytes of a mask that take as long as what two clients agree on
WORTH_COPIES = 2**30  # bytes of masks, with these: below, to make copies takes longer


class Told(NamedTuple):
    """What a client is told when a turn of its is due."""

    client: int
    message: bytes = b""  # of the server
    row: Numbers | None = None  # [d] of the ring, its own, to be masked


Asked = tuple[str, Told]  # the turn first


class Clients(Protocol):
    """The clients of a group, of which each takes every turn once at most."""

    def take(self, turn: str, told: Iterable[Told]) -> Iterator[bytes]:
        """What each of them sends, in the order of who is told.

        Raises:
            ProtocolError: a client refuses.
        """

    def close(self) -> None:
        """Forget their secrets."""


@contextmanager
def clients_of(graph: Graph, threshold: int, ring: Ring, d: int) -> Iterator[Clients]:
    """The clients of a group whose rows have `d` numbers, with no turn taken."""
    clients = _dealt(graph, threshold, ring, d) or ClientsHere(threshold, ring)
    try:
        yield clients
    finally:
        clients.close()


def _dealt(graph: Graph, threshold: int, ring: Ring, d: int) -> ClientsInCopies | None:
    """None where it is not worth it, or not possible."""
    masks = sum(len(among) - 1 for among in graph.values())
    copies = min(cores_to_spare(), len(graph))
    if copies < 2 or masks * (AGREEMENTS + d * ring.dtype.itemsize) < WORTH_COPIES:
        return None
    if not can_fork():
        return None
    try:
        return ClientsInCopies(sorted(graph), threshold, ring, copies)
    except OSError:  # no memory for a copy, or too many processes
        return None


@final
class ClientsHere:
    """In this process, one after the other.

    Args:
        threshold: see `Client`, as for the ring.
    """

    def __init__(self, threshold: int, ring: Ring) -> None:
        self._threshold, self._ring = threshold, ring
        self._clients: dict[int, Client] = {}

    def take(self, turn: str, told: Iterable[Told]) -> Iterator[bytes]:
        """See `Clients`."""
        return (self.answer((turn, one)) for one in told)

    def close(self) -> None:
        """See `Clients`."""
        self._clients.clear()

    def answer(self, asked: Asked) -> bytes:
        """What one client sends."""
        turn, told = asked
        if turn == "advertise":
            client = Client(told.client, self._threshold, self._ring)
            self._clients[told.client] = client
            return client.advertise().encode()
        client = self._clients[told.client]
        if turn == "share":
            return client.share(Roster.decode(told.message)).encode()
        if turn == "mask":
            assert told.row is not None
            return client.mask(ForwardedShares.decode(told.message), told.row).encode()
        return client.unmask(UnmaskRequest.decode(told.message)).encode()


@final
class ClientsInCopies:
    """Dealt to copies of this process, which have their secrets and lose them when they are closed.

    Args:
        group: the clients.
        threshold: see `Client`, as for the ring.
        copies: how many, at least one.
    """

    def __init__(self, group: Sequence[int], threshold: int, ring: Ring, copies: int) -> None:
        self._copies: list[Copy[Asked, bytes]] = []
        try:
            for _ in range(copies):
                self._copies.append(Copy(ClientsHere(threshold, ring).answer))
        except BaseException:
            self.close()
            raise
        self._has: Mapping[int, Copy[Asked, bytes]] = {
            client: self._copies[place % copies] for place, client in enumerate(group)
        }

    def take(self, turn: str, told: Iterable[Told]) -> Iterator[bytes]:
        """See `Clients`; one client of every copy at a time."""
        asked: deque[Copy[Asked, bytes]] = deque()
        for one in told:
            copy, answers = self._has[one.client], list[bytes]()
            while copy in asked:
                answers.append(asked.popleft().answer())
            copy.send((turn, one))
            asked.append(copy)
            yield from answers
        while asked:
            yield asked.popleft().answer()

    def close(self) -> None:
        """See `Clients`: the copies end."""
        for copy in self._copies:
            copy.close()
