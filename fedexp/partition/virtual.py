"""Millions of clients without a list of who holds what: the rows of each are computed.

Row i of the deal is P(i), where P is a permutation of the n rows that needs no table: with the
least power of two M that is n or more, a number goes through rounds of

    x <- x xor (x >> s),    x <- (odd key) x + key' mod M

each of which can be undone, so that all of them are a permutation of the M numbers; a number that
is no row goes through them again until it is one. Client k of K has rows P(floor(k h / K)) ...
P(floor((k + 1) h / K) - 1), where h rows are dealt in all: IID, disjoint, sizes that differ by one.

Sources: Black and Rogaway, "Ciphers with Arbitrary Finite Domains", CT-RSA 2002, section 3 (walking
on until a number is in the domain); the rounds are those of SplitMix64's finaliser (Steele, Lea and
Flood, OOPSLA 2014) with keys, on fewer bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final, overload

import numpy as np

from fedexp.core.checks import InputError, at_least
from fedexp.core.examples import Split
from fedexp.core.partition import Partition
from fedexp.partition.assign import check_enough

LISTED = 1000
"""Up to so many clients are listed in the record as those of any other partition."""

FEW = 32
"""Up to so many numbers are permuted one by one: a client's rows are often six."""

_ROUNDS = 6


@final
@dataclass(frozen=True)
class Virtual:
    """The rows in a random order, in shards of equal size or of sizes that differ by one.

    Args:
        examples: of every client; what they leave of the training part nobody holds. None: all is
            dealt.

    >>> import torch
    >>> train = Split(torch.zeros(10, 1, 2, 2), torch.zeros(10, dtype=torch.int64))
    >>> shards = Virtual(None)(train, 3, np.random.default_rng(0)).shards
    >>> [len(shard) for shard in shards], sorted(np.concatenate(shards).tolist())
    ([3, 3, 4], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    """

    examples: int | None

    def __post_init__(self) -> None:
        if self.examples is not None:
            at_least(1, examples=self.examples)

    def __call__(self, train: Split, n_clients: int, rng: np.random.Generator) -> Partition:
        """Assign `train` to `n_clients`; more than `LISTED` of them are not listed.

        Raises:
            InputError: there are fewer examples than that takes.
        """
        check_enough(train, n_clients)
        dealt = len(train) if self.examples is None else n_clients * self.examples
        if self.examples is not None and dealt > len(train):
            raise InputError(
                f"{n_clients} clients would need {dealt} examples and there are {len(train)}: "
                f"use at most {len(train) // self.examples} clients",
                "examples",
                self.examples,
            )
        keys = rng.integers(2**63, size=(_ROUNDS, 2), dtype=np.uint64)
        shards = VirtualShards(Permutation(len(train), keys), dealt, n_clients)
        return Partition(train, shards if n_clients > LISTED else tuple(shards))


@final
@dataclass(frozen=True)
class Permutation:
    """Of the numbers 0 to n - 1, by keys.

    >>> keys = np.random.default_rng(0).integers(2**63, size=(4, 2), dtype=np.uint64)
    >>> sorted(Permutation(6, keys)(np.arange(6)).tolist())
    [0, 1, 2, 3, 4, 5]
    """

    n: int
    keys: np.ndarray  # [rounds, 2] uint64

    def __call__(self, numbers: np.ndarray) -> np.ndarray:
        """Where numbers `[k]` int64 go: `[k]` int64."""
        if len(numbers) <= FEW:
            return np.array([self._of(number) for number in numbers.tolist()], dtype=np.int64)
        found = self._once(numbers.astype(np.uint64))
        while len(outside := np.flatnonzero(found >= self.n)):
            found[outside] = self._once(found[outside])
        return found.astype(np.int64)

    def _once(self, numbers: np.ndarray) -> np.ndarray:
        shift, mask = np.uint64(self._shift), np.uint64(self._mask)
        for factor, summand in self.keys:
            numbers = numbers ^ (numbers >> shift)
            numbers *= factor | np.uint64(1)  # modulo 2^64, of which 2^bits is a divisor
            numbers += summand
            numbers &= mask
        return numbers

    def _of(self, number: int) -> int:
        """The same for one number, a tenth of what a call for an array of one takes."""
        shift, mask = self._shift, self._mask
        while True:
            for factor, summand in self._odd_keys:
                number = ((number ^ (number >> shift)) * factor + summand) & mask
            if number < self.n:
                return number

    @cached_property
    def _shift(self) -> int:
        return (self._mask.bit_length() + 1) // 2

    @cached_property
    def _mask(self) -> int:
        return int(2 ** max(1, (self.n - 1).bit_length()) - 1)

    @cached_property
    def _odd_keys(self) -> list[tuple[int, int]]:
        return [(factor | 1, summand) for factor, summand in self.keys.tolist()]


@final
@dataclass(frozen=True)
class VirtualShards(Sequence[np.ndarray]):
    """Who holds what, computed.

    Args:
        order: of the rows.
        dealt: how many rows are dealt, the first of that order.
        n_clients: to whom.
    """

    order: Permutation
    dealt: int
    n_clients: int

    def __len__(self) -> int:
        return self.n_clients

    @overload
    def __getitem__(self, client: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, client: slice) -> Sequence[np.ndarray]: ...
    def __getitem__(self, client: Any) -> Any:
        if isinstance(client, slice):
            return [self[k] for k in range(*client.indices(self.n_clients))]
        if not -self.n_clients <= client < self.n_clients:
            raise IndexError(client)
        client = int(client) % self.n_clients
        return np.sort(self.order(np.arange(self._edge(client), self._edge(client + 1))))

    def sizes(self) -> np.ndarray:
        """`[n_clients]` int64."""
        return np.diff(np.arange(self.n_clients + 1) * self.dealt // self.n_clients)

    def between(self, first: int, last: int) -> np.ndarray:
        """The rows of clients first..last-1, client by client and in ascending order."""
        rows = self.order(np.arange(self._edge(first), self._edge(last)))
        edges = np.arange(first, last + 1) * self.dealt // self.n_clients
        holder = np.repeat(np.arange(last - first), np.diff(edges))
        return np.sort(holder * self.order.n + rows) - holder * self.order.n

    def _edge(self, client: int) -> int:
        return client * self.dealt // self.n_clients
