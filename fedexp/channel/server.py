"""The server's side: it passes boxes on, adds masked rows up, and takes the masks off the sum.

    sum of rows = sum of masked rows - sum over survivors of stream(own_u)
                  - sum over dropped v and their surviving neighbours u of +-stream(key_uv)

All that it ever learns lies in its `ServerView`. It refuses whatever an honest client would not
send, and gives up as soon as fewer than a threshold are left: of the group, or of the holders of
somebody's secrets.

Source: Bonawitz et al., CCS 2017, figure 4; thresholds among neighbours, Bell et al., CCS 2020.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import final

import numpy as np

from fedexp.channel.client import MASKS, holder_of
from fedexp.channel.graph import Graph
from fedexp.channel.keys import KeyPair
from fedexp.channel.masks import Mask, add_masks, pair_sign
from fedexp.channel.messages import (
    EncryptedShares,
    ForwardedShares,
    KeyAdvertisement,
    MaskedRow,
    RevealedShares,
    Roster,
    UnmaskRequest,
)
from fedexp.channel.ring import Numbers, Ring
from fedexp.channel.shamir import reconstruct_secret
from fedexp.channel.violations import ProtocolError, TooFewClients, blamed_on
from fedexp.core.checks import InputError


@final
@dataclass
class ServerView:
    """Everything that the server saw of one group. An attack on privacy gets this and no more."""

    graph: Graph
    advertisements: dict[int, KeyAdvertisement] = field(default_factory=dict)
    shares: dict[int, EncryptedShares] = field(default_factory=dict)
    rows: dict[int, MaskedRow] = field(default_factory=dict)  # bytes only if they are recorded
    revealed: dict[int, RevealedShares] = field(default_factory=dict)
    total: Numbers | None = None  # [d] the unmasked sum


@final
class Server:
    """The server in one round of one group.

    Args:
        graph: who masks with whom, see `fedexp.channel.graph`.
        group_threshold: T, the fewest clients of the group that must be left at every stage.
        share_threshold: t, how many holders of a secret must be left to find it.
        ring: in which rows are masked.
        d: numbers in a row.
        record_rows: keep the masked rows in the view, not only their sum.

    Raises:
        InputError: fewer than 3 clients, or thresholds that are not above half and at most all.
    """

    def __init__(
        self,
        graph: Graph,
        group_threshold: int,
        share_threshold: int,
        ring: Ring,
        d: int,
        record_rows: bool,
    ) -> None:
        check_thresholds(graph, group_threshold, share_threshold)
        self.view = ServerView(graph)
        self._group_threshold, self._share_threshold = group_threshold, share_threshold
        self.d = d
        self._ring, self._record_rows = ring, record_rows
        self._sum = np.zeros(d, ring.dtype)

    @property
    def survivors(self) -> tuple[int, ...]:
        """Whose rows are in the sum."""
        return tuple(sorted(self.view.rows))

    # 1. Keys.

    def receive_keys(self, advertisement: KeyAdvertisement) -> None:
        """Raises ProtocolError for a stranger or a second time."""
        self._admit(advertisement.client, self.view.graph, self.view.advertisements)
        self.view.advertisements[advertisement.client] = advertisement

    def rosters(self) -> dict[int, Roster]:
        """The keys for every client that advertised; raises TooFewClients."""
        known = self.view.advertisements
        self._require(known, "advertised keys", known)
        return {c: Roster(tuple(known[v] for v in self._among(c, known))) for c in sorted(known)}

    # 2. Shares.

    def receive_shares(self, shares: EncryptedShares) -> None:
        """Raises ProtocolError for a stranger, a second time, or boxes for the wrong clients."""
        self._admit(shares.sender, self.view.advertisements, self.view.shares)
        expected = {*self._among(shares.sender, self.view.advertisements)} - {shares.sender}
        if shares.boxes.keys() != expected:
            raise ProtocolError(f"client {shares.sender} sent shares to the wrong clients")
        self.view.shares[shares.sender] = shares

    def forwarded(self) -> dict[int, ForwardedShares]:
        """The boxes for every client that shared; raises TooFewClients."""
        sent = self.view.shares
        self._require(sent, "shared their secrets", sent)
        return {
            c: ForwardedShares(c, {v: sent[v].boxes[c] for v in self._among(c, sent) if v != c})
            for c in sorted(sent)
        }

    # 3. Rows.

    def receive_row(self, row: MaskedRow) -> None:
        """Raises ProtocolError for a stranger, a second time, or a wrong length."""
        self._admit(row.client, self.view.shares, self.view.rows)
        self._sum += self._ring.decode(row.numbers, self.d)
        self.view.rows[row.client] = row if self._record_rows else MaskedRow(row.client, b"")

    def requests(self) -> dict[int, UnmaskRequest]:
        """What to ask every client whose row arrived; raises TooFewClients."""
        arrived, shared = self.view.rows, self.view.shares
        self._require(arrived, "sent their masked rows", shared)
        return {
            c: UnmaskRequest(self._among(c, arrived), self._among(c, shared.keys() - arrived))
            for c in self.survivors
        }

    # 4. Unmasking.

    def receive_revealed(self, revealed: RevealedShares) -> None:
        """Raises ProtocolError for a stranger, a second time, or shares not asked for."""
        client, shared = revealed.client, self.view.shares
        self._admit(client, self.view.rows, self.view.revealed)
        survivors = {*self._among(client, self.view.rows)}
        dropped = {*self._among(client, shared)} - survivors
        if revealed.of_seeds.keys() != survivors or revealed.of_keys.keys() != dropped:
            raise ProtocolError(f"client {client} revealed shares that it was not asked for")
        self.view.revealed[client] = revealed

    def unmask(self) -> Numbers:
        """The sum `[d]` of the survivors' rows, in the ring.

        Raises:
            TooFewClients: too few helped.
            ProtocolError: a revealed share is not the one that was handed out, or a commitment is
                false; names whose secret it is.
        """
        view = self.view
        self._require(view.revealed, "helped to unmask", view.shares)
        masks: list[Mask] = []
        for client in self.survivors:
            shares = {
                holder_of(h): view.revealed[h].of_seeds[client]
                for h in self._among(client, view.revealed)
            }
            commitment = view.shares[client].seed_commitment
            with blamed_on(client):
                seed = reconstruct_secret(shares, self._share_threshold, commitment)
            masks.append((seed, -1))
        for client in sorted(view.shares.keys() - view.rows):
            masks += self._pair_masks(client)
        total = self._sum.copy()
        add_masks(total, masks)
        view.total = self._ring.reduced(total)
        return view.total

    def _pair_masks(self, dropped: int) -> Iterator[Mask]:
        """What takes off that which the surviving neighbours masked with `dropped`."""
        view = self.view
        holders = self._among(dropped, view.revealed)
        shares = {holder_of(h): view.revealed[h].of_keys[dropped] for h in holders}
        commitment = view.shares[dropped].key_commitment
        with blamed_on(dropped):
            keys = KeyPair(reconstruct_secret(shares, self._share_threshold, commitment))
        if keys.public != view.advertisements[dropped].masking_key:
            raise ProtocolError(f"client {dropped} shared a key that is not the one it advertised")
        for other in self._among(dropped, view.rows):
            with blamed_on(other):
                common = keys.agree(view.advertisements[other].masking_key, MASKS)
            yield common, pair_sign(dropped, other)

    def _admit(self, client: int, expected: Collection[int], seen: Collection[int]) -> None:
        if client not in expected:
            raise ProtocolError(f"client {client} is not expected to send anything now")
        if client in seen:
            raise ProtocolError(f"client {client} sent the same message twice")

    def _among(self, client: int, present: Collection[int]) -> tuple[int, ...]:
        """The client and its neighbours, as far as they are present."""
        return tuple(c for c in self.view.graph[client] if c in present)

    def _require(self, present: Collection[int], did: str, owners: Collection[int]) -> None:
        """So many present that nothing is lost: of all, and of the holders of owners' secrets."""
        n, least = len(self.view.graph), self._group_threshold
        if len(present) < least:
            raise TooFewClients(f"{len(present)} of {n} clients {did}, {least} are needed")
        for owner in sorted(owners):
            holders = len(self._among(owner, present))
            if holders < self._share_threshold:
                raise TooFewClients(
                    f"{holders} of the {len(self.view.graph[owner])} clients that hold shares of "
                    f"client {owner}'s secrets {did}, {self._share_threshold} are needed"
                )


def check_thresholds(graph: Graph, group_threshold: int, share_threshold: int) -> None:
    """Raise InputError where a sum would hide too little, or a minority could unmask a client."""
    sizes: Sequence[int] = [len(graph), *(len(holders) for holders in graph.values())]
    if min(sizes) < 3:
        raise InputError("a sum of fewer than 3 clients hides too little", "clients", min(sizes))
    for name, threshold, n in (
        ("group_threshold", group_threshold, len(graph)),
        ("share_threshold", share_threshold, min(sizes)),
    ):
        if not max(2, n // 2 + 1) <= threshold <= n:
            raise InputError(
                f"must be above half of the {n} clients and at most {n}: from {n // 2 + 1}",
                name,
                threshold,
            )
    if group_threshold < 3:
        raise InputError(
            "must be 3 or more: a sum of two tells each of them the other's row",
            "group_threshold",
            group_threshold,
        )
