"""Keys that two clients agree on, and messages that only the two can read.

    key(u, v) = HKDF-SHA256(X25519(private_u, public_v), purpose, both public keys)
    box = ChaCha20-Poly1305(key(u, v), nonce, message, sender and receiver)

Private keys and nonces come from the operating system, never from a run's seed.

Source: RFC 7748 (X25519), RFC 5869 (HKDF), RFC 8439 (ChaCha20-Poly1305); all from `cryptography`.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedexp.channel.violations import ProtocolError

KEY_BYTES = 32
NONCE_BYTES = 12
BOX_OVERHEAD_BYTES = NONCE_BYTES + 16  # and the tag


@final
class KeyPair:
    """An X25519 key pair; `private` [32 bytes] makes the same pair again.

    >>> alice, bob = KeyPair(), KeyPair()
    >>> alice.agree(bob.public, b"masks") == bob.agree(alice.public, b"masks")
    True
    >>> alice.agree(bob.public, b"masks") == alice.agree(bob.public, b"shares")
    False
    """

    def __init__(self, private: bytes | None = None) -> None:
        made = X25519PrivateKey.from_private_bytes(private) if private is not None else None
        self._key = made or X25519PrivateKey.generate()
        self.public = self._key.public_key().public_bytes_raw()

    @property
    def private(self) -> bytes:
        """The 32 bytes to share with others so that they can make this pair again."""
        return self._key.private_bytes_raw()

    def agree(self, public: bytes, purpose: bytes) -> bytes:
        """32 bytes that the owner of `public` finds as well, different for every purpose.

        Raises:
            ProtocolError: `public` is a point of small order, which would give away the key.
        """
        try:
            common = self._key.exchange(_public_key(public))
        except ValueError as error:
            raise ProtocolError("a public key is not a usable X25519 key") from error
        info = purpose + min(self.public, public) + max(self.public, public)
        return HKDF(SHA256(), KEY_BYTES, salt=None, info=info).derive(common)


@lru_cache(maxsize=4096)
def _public_key(raw: bytes) -> X25519PublicKey:
    """Read once for all who agree with its owner: nothing about it is secret."""
    return X25519PublicKey.from_public_bytes(raw)


def seal(key: bytes, message: bytes, envelope: bytes) -> bytes:
    """The message encrypted, and bound to what the envelope says."""
    nonce = os.urandom(NONCE_BYTES)
    return nonce + ChaCha20Poly1305(key).encrypt(nonce, message, envelope)


def unseal(key: bytes, box: bytes, envelope: bytes) -> bytes:
    """The message in a box.

    Raises:
        ProtocolError: the box or its envelope was tampered with, or is meant for another key.
    """
    try:
        return ChaCha20Poly1305(key).decrypt(box[:NONCE_BYTES], box[NONCE_BYTES:], envelope)
    except InvalidTag as error:
        raise ProtocolError("an encrypted share was tampered with, replayed or misaddressed") from (
            error
        )
