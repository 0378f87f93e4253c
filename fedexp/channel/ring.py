"""The numbers that are masked: whole numbers modulo 2^bits, in which sums wrap around.

A signed sum below 2^(bits - 1) in size comes back as it was; on the wire a number takes bits / 8
bytes. Arithmetic is unsigned NumPy's, whose overflow is the wrapping that is wanted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np

from fedexp.channel.violations import ProtocolError
from fedexp.core.checks import InputError

Numbers = np.ndarray[Any, np.dtype[Any]]
MIN_BITS, MAX_BITS = 16, 64


@final
@dataclass(frozen=True)
class Ring:
    """The whole numbers modulo 2^bits.

    >>> ring = Ring(16)
    >>> ring.to_signed(ring.from_signed(np.array([-1, 300])) + ring.from_signed(np.array([2, 5])))
    array([  1, 305])
    """

    bits: int  # 16 to 64, whole bytes

    def __post_init__(self) -> None:
        if self.bits not in range(MIN_BITS, MAX_BITS + 1, 8):
            raise InputError("must be 16, 24, 32, 40, 48, 56 or 64", "ring_bits", self.bits)

    @classmethod
    def that_holds(cls, largest: int) -> Ring:
        """The smallest ring in which sums of size up to `largest` are told apart from others.

        >>> Ring.that_holds(2**31 - 1), Ring.that_holds(2**31)
        (Ring(bits=32), Ring(bits=40))
        """
        bytes_needed = largest.bit_length() // 8 + 1  # the sign needs a bit too
        return cls(max(MIN_BITS, min(8 * bytes_needed, MAX_BITS))).checked(largest)

    def checked(self, largest: int) -> Ring:
        """This ring; raises InputError if sums of size `largest` would wrap around."""
        if largest >= 2 ** (self.bits - 1):
            raise InputError(
                f"too small: sums reach {largest}, and 2^{self.bits - 1} or above wraps around; "
                f"{largest.bit_length() + 1} bits are needed",
                "ring_bits",
                self.bits,
            )
        return self

    @property
    def dtype(self) -> np.dtype[Any]:
        """In which NumPy type numbers are added."""
        return np.dtype(np.uint32 if self.bits <= 32 else np.uint64)

    @property
    def bytes_each(self) -> int:
        """Bytes of a number on the wire."""
        return self.bits // 8

    def from_signed(self, values: Numbers) -> Numbers:
        """Signed int64 `[d]` to numbers of the ring."""
        return self.reduced(values.astype(self.dtype))

    def reduced(self, numbers: Numbers) -> Numbers:
        """Numbers `[d]` without what arithmetic left above the ring's bits."""
        kept: Numbers = numbers & self.dtype.type(2**self.bits - 1)
        return kept

    def to_signed(self, numbers: Numbers) -> Numbers:
        """Numbers `[d]` of the ring to int64 in [-2^(bits-1), 2^(bits-1))."""
        signed = np.dtype(np.int32 if self.dtype == np.uint32 else np.int64)
        # Shifting up and back fills the unused high bits with the sign.
        unused = 8 * self.dtype.itemsize - self.bits
        shifted: Numbers = (numbers << self.dtype.type(unused)).view(signed) >> unused
        return shifted.astype(np.int64)

    def encode(self, numbers: Numbers) -> bytes:
        """Numbers `[d]` as d x bits / 8 bytes, little-endian; higher bits fall away."""
        if self.bytes_each == self.dtype.itemsize:
            return numbers.tobytes()
        raw = numbers.view(np.uint8).reshape(-1, self.dtype.itemsize)
        return raw[:, : self.bytes_each].tobytes()

    def decode(self, data: bytes, d: int) -> Numbers:
        """The numbers `[d]` behind the bytes; raises ProtocolError at a wrong length."""
        if len(data) != d * self.bytes_each:
            raise ProtocolError(f"{len(data)} bytes for {d} numbers of {self.bytes_each} bytes")
        raw = np.frombuffer(data, np.uint8)
        if self.bytes_each == self.dtype.itemsize:
            return raw.view(self.dtype)
        padded = np.zeros((d, self.dtype.itemsize), np.uint8)
        padded[:, : self.bytes_each] = raw.reshape(d, self.bytes_each)
        return padded.view(self.dtype).reshape(d)
