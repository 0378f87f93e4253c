"""A client's four turns: advertise keys, share secrets, send the masked row, help to unmask.

It keeps two secrets: a seed (its own mask) and the private half of its masking key (the masks that
it has in common with neighbours). Shares of both lie with its neighbours. For a client whose row
arrived the server may learn the seed, for one whose row did not the key; who gave both away would
give away the row, so a client answers one request a round and reveals one kind for each neighbour.

Source: Bonawitz et al., "Practical Secure Aggregation for Privacy-Preserving Machine Learning",
CCS 2017, figure 4, against an honest-but-curious server: no signatures, no consistency check.
"""

from __future__ import annotations

import os
import struct
from typing import final

from fedexp.channel.keys import KeyPair, seal, unseal
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
from fedexp.channel.shamir import SECRET_BYTES, SHARE_BYTES, SharedSecret, share_secret
from fedexp.channel.violations import ProtocolError, TooFewClients, blamed_on

TURNS = ("advertise", "share", "mask", "unmask")
MASKS, SHARES = b"fedexp pairwise mask", b"fedexp share encryption"  # what a common key is for


@final
class Client:
    """One client in one round; every method may be called once, in the order of `TURNS`.

    Args:
        number: the client's number, 0 or above.
        threshold: how many of its holders it takes to find its secrets.
        ring: in which rows are masked.
    """

    def __init__(self, number: int, threshold: int, ring: Ring) -> None:
        self._number, self._threshold, self._ring = number, threshold, ring
        self._encryption, self._masking = KeyPair(), KeyPair()
        self._seed = os.urandom(SECRET_BYTES)
        self._turn = 0
        self._roster: dict[int, KeyAdvertisement] = {}
        self._boxes: dict[int, bytes] = {}
        self._commons: dict[int, bytes] = {}  # keys to seal and unseal with, by the other client
        self._seed_share = self._key_share = 0  # of its own secrets

    def advertise(self) -> KeyAdvertisement:
        """Its public keys."""
        self._take_turn("advertise")
        return KeyAdvertisement(self._number, self._encryption.public, self._masking.public)

    def share(self, roster: Roster) -> EncryptedShares:
        """Its secrets in shares, one for itself and one for everybody else on the roster.

        Raises:
            TooFewClients: the roster is shorter than the threshold.
            ProtocolError: two have the same key or number, or its own keys are not its own.
        """
        self._take_turn("share")
        listed = {a.client: a for a in roster.advertisements}
        keys = {key for a in listed.values() for key in (a.encryption_key, a.masking_key)}
        own = KeyAdvertisement(self._number, self._encryption.public, self._masking.public)
        if len(keys) != 2 * len(roster.advertisements) or listed.get(self._number) != own:
            raise ProtocolError(f"client {self._number} was given a roster with wrong keys")
        self._require(len(listed), "advertised their keys")
        self._roster = listed

        holders = [holder_of(client) for client in listed]
        seed = share_secret(self._seed, self._threshold, holders)
        key = share_secret(self._masking.private, self._threshold, holders)
        self._seed_share = seed.shares[holder_of(self._number)]
        self._key_share = key.shares[holder_of(self._number)]
        boxes = {c: self._box(c, seed, key) for c in listed if c != self._number}
        return EncryptedShares(self._number, seed.commitment, key.commitment, boxes)

    def mask(self, forwarded: ForwardedShares, row: Numbers) -> MaskedRow:
        """Its `row` `[d]` of the ring under its own mask and those it has with every sender.

        Raises:
            TooFewClients: fewer than the threshold shared their secrets.
            ProtocolError: shares of somebody who is not on the roster, or meant for another.
        """
        self._take_turn("mask")
        senders = forwarded.boxes.keys()
        if forwarded.receiver != self._number or not senders <= self._others():
            raise ProtocolError(f"client {self._number} was sent shares that are not for it")
        self._require(len(senders) + 1, "shared their secrets")
        self._boxes = dict(forwarded.boxes)

        masks: list[Mask] = [(self._seed, 1)]
        for other in senders:
            with blamed_on(other):
                common = self._masking.agree(self._roster[other].masking_key, MASKS)
            masks.append((common, pair_sign(self._number, other)))
        masked = row.copy()
        add_masks(masked, masks)
        return MaskedRow(self._number, self._ring.encode(masked))

    def unmask(self, request: UnmaskRequest) -> RevealedShares:
        """Shares of the survivors' seeds and of the dropped clients' keys.

        Raises:
            TooFewClients: fewer survivors than the threshold.
            ProtocolError: both kinds of share of one client, or a share that it does not hold, are
                asked for; or a share that it was sent was tampered with.
        """
        self._take_turn("unmask")
        survivors, dropped = set(request.survivors), set(request.dropped)
        asked = [*request.survivors, *request.dropped]
        if len(asked) != len(survivors | dropped):
            raise ProtocolError(
                f"client {self._number} was asked for more than one share of one client's secrets"
            )
        if self._number not in survivors or not survivors | dropped <= {self._number, *self._boxes}:
            raise ProtocolError(f"client {self._number} was asked for shares that it cannot have")
        self._require(len(survivors), "had their rows arrive")

        held = {other: self._open(other) for other in asked if other != self._number}
        held[self._number] = (self._seed_share, self._key_share)
        return RevealedShares(
            self._number,
            {owner: held[owner][0] for owner in request.survivors},
            {owner: held[owner][1] for owner in request.dropped},
        )

    def _take_turn(self, name: str) -> None:
        # A turn that fails counts as taken: a client that refused something does not go on.
        turn, self._turn = self._turn, len(TURNS)
        if turn >= len(TURNS) or TURNS[turn] != name:
            raise ProtocolError(f"client {self._number} was asked to {name} out of turn")
        self._turn = turn + 1

    def _require(self, present: int, did: str) -> None:
        if present < self._threshold:
            raise TooFewClients(
                f"{present} of client {self._number} and its neighbours {did}, "
                f"{self._threshold} are needed"
            )

    def _others(self) -> set[int]:
        return self._roster.keys() - {self._number}

    def _box(self, receiver: int, seed: SharedSecret, key: SharedSecret) -> bytes:
        shares = (kind.shares[holder_of(receiver)] for kind in (seed, key))
        message = b"".join(share.to_bytes(SHARE_BYTES, "little") for share in shares)
        return seal(self._common(receiver), message, _envelope(self._number, receiver))

    def _open(self, sender: int) -> tuple[int, int]:
        """(share of the seed, share of the key) that `sender` sent."""
        box, envelope = self._boxes[sender], _envelope(sender, self._number)
        common = self._common(sender)
        with blamed_on(sender):
            message = unseal(common, box, envelope)
        seed, key = message[:SHARE_BYTES], message[SHARE_BYTES:]
        return int.from_bytes(seed, "little"), int.from_bytes(key, "little")

    def _common(self, other: int) -> bytes:
        if other not in self._commons:
            with blamed_on(other):
                key = self._roster[other].encryption_key
                self._commons[other] = self._encryption.agree(key, SHARES)
        return self._commons[other]


def holder_of(client: int) -> int:
    """Where a client's shares lie on the polynomials; 0 is the secret."""
    return client + 1


def _envelope(sender: int, receiver: int) -> bytes:
    return struct.pack("<2I", sender, receiver)
