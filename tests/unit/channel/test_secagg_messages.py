"""Messages as bytes: as long as they say, back again, and nothing else is accepted."""

import pytest

from fedexp.channel.messages import (
    EncryptedShares,
    ForwardedShares,
    KeyAdvertisement,
    MaskedRow,
    RevealedShares,
    Roster,
    UnmaskRequest,
)
from fedexp.channel.shamir import PRIME
from fedexp.channel.violations import ProtocolError

KEYS = KeyAdvertisement(7, b"e" * 32, b"m" * 32)
MESSAGES = {  # message -> bytes
    KEYS: 4 + 32 + 32,
    Roster((KEYS, KEYS)): 2 * 68,
    Roster(()): 0,
    UnmaskRequest((1, 2, 2**32 - 1), (4,)): 4 + 4 * 4,
    UnmaskRequest((), ()): 4,
    MaskedRow(3, b"numbers"): 4 + 7,
}
TABLES = [
    (EncryptedShares(7, b"a" * 32, b"b" * 32, {2: b"x" * 160, 1: b"y" * 160}), 68 + 2 * 164),
    (ForwardedShares(7, {5: b"z" * 160}), 4 + 164),
    (RevealedShares(7, {1: 0, 2: PRIME - 1}, {3: 5}), 8 + 3 * 70),
    (RevealedShares(7, {}, {}), 8),
]
ALL = [*MESSAGES.items(), *TABLES]
each = pytest.mark.parametrize(("message", "size"), ALL, ids=lambda m: type(m).__name__)


@each
def test_there_and_back(message, size):
    data = message.encode()
    assert len(data) == size
    assert type(message).decode(data) == message


# Any length is a row, see Ring.decode, and an empty roster has no half.
WITH_A_HALF = [message for message, size in ALL if size and not isinstance(message, MaskedRow)]


@pytest.mark.parametrize("message", WITH_A_HALF, ids=lambda m: type(m).__name__)
def test_half_a_message_is_refused(message):
    with pytest.raises(ProtocolError):
        type(message).decode(message.encode()[:-1])


def test_two_entries_for_one_client_are_refused():
    data = ForwardedShares(7, {5: b"z" * 160}).encode()
    with pytest.raises(ProtocolError, match="two entries for client 5"):
        ForwardedShares.decode(data + data[4:])
