"""One group's run of secure aggregation: four turns of every client, and the server between them.

    advertise   keys up, rosters down                  U1: who advertised
    share       boxes up, boxes down                   U2: who shared
    mask        masked rows up, requests down          U3: whose rows are in the sum
    unmask      shares up                              U4: who helped

A client that leaves before a turn takes neither that turn nor a later one. Messages travel as
bytes, which is what is counted.

Source: Bonawitz et al., CCS 2017, figure 4.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import final

from fedexp.channel.client import TURNS
from fedexp.channel.messages import (
    EncryptedShares,
    KeyAdvertisement,
    MaskedRow,
    Message,
    RevealedShares,
)
from fedexp.channel.ring import Numbers, Ring
from fedexp.channel.server import Server
from fedexp.channel.turns import Told, clients_of

STAGES = (*TURNS[:2], "encode", *TURNS[2:], "sum")


@final
class Meter:
    """Bytes either way, and seconds by stage: the clients' turns, and `sum` for the server."""

    def __init__(self) -> None:
        self.bytes_up = self.bytes_down = 0
        self.seconds: dict[str, float] = dict.fromkeys(STAGES, 0.0)
        self._timed = 0.0  # seconds of all stages

    def up(self, data: bytes) -> bytes:
        """A client's message, on its way to the server."""
        self.bytes_up += len(data)
        return data

    def down(self, messages: Mapping[int, Message]) -> dict[int, bytes]:
        """The server's messages to the clients, on their way."""
        sent = {client: message.encode() for client, message in messages.items()}
        self.bytes_down += sum(map(len, sent.values()))
        return sent

    @contextmanager
    def timing(self, stage: str) -> Iterator[None]:
        """Add the seconds of the block to a stage, without those of stages within it."""
        started, timed = time.perf_counter(), self._timed
        yield
        seconds = time.perf_counter() - started
        self.seconds[stage] += seconds - (self._timed - timed)
        self._timed = timed + seconds


def run_group(
    server: Server,
    ring: Ring,
    share_threshold: int,
    row_of: Callable[[int], Numbers],
    leaving: Mapping[int, str],
    meter: Meter,
) -> Numbers:
    """The sum `[d]`, in the ring, of the rows of `server.survivors`.

    Args:
        server: fresh, with the group's graph.
        ring: the server's.
        share_threshold: the server's.
        row_of: a client's row `[d]` of the ring; called when the client masks it.
        leaving: client -> the turn before which it leaves; who is not in it stays.
        meter: what to count in.

    Raises:
        TooFewClients: so many left that there is no sum.
    """

    def masking() -> Iterator[Told]:
        for c in _staying(forwarded, leaving, "mask"):
            with meter.timing("encode"):
                row = row_of(c)
            yield Told(c, forwarded[c], row)

    with clients_of(server.view.graph, share_threshold, ring, server.d) as clients:
        with meter.timing("advertise"):
            told = (Told(c) for c in _staying(sorted(server.view.graph), leaving, "advertise"))
            for keys in clients.take("advertise", told):
                server.receive_keys(KeyAdvertisement.decode(meter.up(keys)))

        with meter.timing("share"):
            rosters = meter.down(server.rosters())
            told = (Told(c, rosters[c]) for c in _staying(rosters, leaving, "share"))
            for shares in clients.take("share", told):
                server.receive_shares(EncryptedShares.decode(meter.up(shares)))

        with meter.timing("mask"):
            forwarded = meter.down(server.forwarded())
            for masked in clients.take("mask", masking()):
                server.receive_row(MaskedRow.decode(meter.up(masked)))

        with meter.timing("unmask"):
            requests = meter.down(server.requests())
            told = (Told(c, requests[c]) for c in _staying(requests, leaving, "unmask"))
            for revealed in clients.take("unmask", told):
                server.receive_revealed(RevealedShares.decode(meter.up(revealed)))

    with meter.timing("sum"):
        return server.unmask()


def _staying(clients: Iterable[int], leaving: Mapping[int, str], turn: str) -> list[int]:
    # Who left before an earlier turn is not among `clients` any more.
    return [c for c in clients if leaving.get(c) != turn]
