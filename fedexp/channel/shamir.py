"""Shamir's secret sharing: t shares give the secret, t - 1 give nothing.

    f(x) = secret + a_1 x + ... + a_{t-1} x^{t-1}   over the field of p = 2^521 - 1
    share of x = f(x);   secret = f(0) = sum_i f(x_i) prod_{j != i} x_j / (x_j - x_i)

The a_i are uniform, so any t - 1 shares are uniform and independent of the secret. A hash of the
secret travels beside the shares: without it, a wrong share gives a wrong secret in silence.

Source: Shamir, "How to Share a Secret", Communications of the ACM 1979. Common libraries share 16
bytes and accept t = 0 or 1, where every share is the secret itself.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from fedexp.channel.violations import ProtocolError, TooFewClients
from fedexp.core.checks import InputError

PRIME = 2**521 - 1
SECRET_BYTES = 32
AT_ONCE = 32  # coefficients between two reductions
SHARE_BYTES = 66  # of a number below PRIME


@dataclass(frozen=True)
class SharedSecret:
    """The shares of a secret by the holder's x, and the hash that the secret is checked against."""

    shares: Mapping[int, int]
    commitment: bytes


def commitment_to(secret: bytes) -> bytes:
    """SHA-256 of the secret: hides 32 random bytes, and fits no others."""
    return hashlib.sha256(b"fedexp shared secret" + secret).digest()


def share_secret(secret: bytes, threshold: int, holders: Sequence[int]) -> SharedSecret:
    """Shares of 32 bytes for holders x_1 ... x_n (distinct, 1 or above).

    Raises:
        InputError: unless 2 <= threshold <= n and the holders are distinct.

    >>> shared = share_secret(bytes(32), 2, [1, 2, 3])
    >>> two = {x: shared.shares[x] for x in (1, 3)}
    >>> reconstruct_secret(two, 2, shared.commitment) == bytes(32)
    True
    """
    n = len(holders)
    if not 2 <= threshold <= n:
        raise InputError(f"must lie between 2 and the {n} holders", "threshold", threshold)
    if len(set(holders)) != n or min(holders) < 1 or max(holders) >= PRIME:
        raise InputError("must be distinct and 1 or above", "holders", list(holders))
    if len(secret) != SECRET_BYTES:
        raise InputError(f"must be {SECRET_BYTES} bytes", "secret", f"{len(secret)} bytes")
    polynomial = [_field_element() for _ in range(threshold - 1)]  # a_{t-1} first
    polynomial.append(int.from_bytes(secret, "little"))
    return SharedSecret({x: _value(polynomial, x) for x in holders}, commitment_to(secret))


def reconstruct_secret(shares: Mapping[int, int], threshold: int, commitment: bytes) -> bytes:
    """The 32 bytes behind `threshold` of the shares.

    Raises:
        TooFewClients: fewer than `threshold` shares.
        ProtocolError: a share is not what its owner handed out, or the commitment is to another
            secret.
    """
    if len(shares) < threshold:
        raise TooFewClients(f"{len(shares)} of the {threshold} shares needed of a secret are left")
    chosen = tuple(sorted(shares)[:threshold])
    weights = _weights_at_zero(chosen)
    value = sum(w * shares[x] for w, x in zip(weights, chosen, strict=True)) % PRIME
    if value.bit_length() <= 8 * SECRET_BYTES:
        secret = value.to_bytes(SECRET_BYTES, "little")
        if hmac.compare_digest(commitment_to(secret), commitment):
            return secret
    raise ProtocolError(
        "a share of its secret was tampered with, or its commitment is false: they do not belong "
        "to one secret"
    )


def _field_element() -> int:
    """Uniform in [0, PRIME), from the operating system."""
    while (drawn := int.from_bytes(os.urandom(SHARE_BYTES), "little") >> 7) == PRIME:
        pass
    return drawn


def _value(polynomial: Sequence[int], x: int) -> int:
    value = 0
    for start in range(0, len(polynomial), AT_ONCE):
        for coefficient in polynomial[start : start + AT_ONCE]:
            value = value * x + coefficient
        value %= PRIME  # x is small: to reduce at every step would take longer than the products
    return value


@lru_cache(maxsize=256)
def _weights_at_zero(xs: tuple[int, ...]) -> tuple[int, ...]:
    """Lagrange's weights of f(x) in f(0). The same survivors unmask many clients: kept."""
    weights = []
    for x in xs:
        above, below = 1, 1
        for other in xs:
            if other != x:
                above = above * other % PRIME
                below = below * (other - x) % PRIME
        weights.append(above * pow(below, -1, PRIME) % PRIME)
    return tuple(weights)
