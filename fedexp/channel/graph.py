"""Who masks with whom, and who holds shares of whose secrets.

Complete: everybody with everybody, n - 1 masks a client. Neighbours: a random k-regular graph, the
clients on a circle in random order, each joined to the k / 2 next ones on either side; k masks a
client, and n k instead of n^2 messages. A client's secrets are held by itself and its neighbours.

With k neighbours a server together with c of the clients learns more than the sum where

    the honest clients whose rows arrived are not connected   the sums of the parts are then known
    an honest client has t or more colluding neighbours       they open its secrets (t: threshold)

On the circle in random order every way to distribute the n - s clients that collude or left into
the s gaps between the others is equally likely, and the graph falls apart if two gaps have k / 2 or
more. So, by the union bound (Bonferroni's for two gaps), the probability is at most

    C(s, 2) C(n - 1 - k, s - 1) / C(n - 1, s - 1)  +  (n - c) P[Hypergeometric(n - 1, c, k) >= t]

with the first term averaged over who left. Bell et al. ask for 2^-40 a round.

Source: complete, Bonawitz et al., "Practical Secure Aggregation for Privacy-Preserving Machine
Learning", CCS 2017; neighbours, Bell et al., "Secure Single-Server Aggregation with
(Poly)Logarithmic Overhead", CCS 2020, section 3 (definition 3.1, of a nice graph), where the first
term is bounded by n (share of colluders and dropouts)^(k / 2).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import numpy as np

from fedexp.core.checks import InputError

Graph = Mapping[int, tuple[int, ...]]
"""Client -> itself and its neighbours, sorted."""


def complete_graph(clients: Sequence[int]) -> Graph:
    """Everybody is everybody's neighbour.

    >>> complete_graph([4, 2])
    {4: (2, 4), 2: (2, 4)}
    """
    everybody = tuple(sorted(clients))
    return dict.fromkeys(clients, everybody)


def neighbour_graph(clients: Sequence[int], neighbours: int, rng: np.random.Generator) -> Graph:
    """A random graph in which everybody has `neighbours` neighbours; complete if so few are there.

    Raises:
        InputError: `neighbours` is odd or below 2.
    """
    if neighbours < 2 or neighbours % 2:
        raise InputError("must be an even number, 2 or above", "neighbours", neighbours)
    n = len(clients)
    if neighbours >= n - 1:
        return complete_graph(clients)
    circle = [clients[i] for i in rng.permutation(n)]
    steps = range(-(neighbours // 2), neighbours // 2 + 1)
    return {c: tuple(sorted(circle[(i + s) % n] for s in steps)) for i, c in enumerate(circle)}


@lru_cache
def exposure(n: int, neighbours: int, threshold: int, colluders: int, dropout: float) -> float:
    """An upper bound on the probability that a round tells a colluding server more than the sum.

    Args:
        n: clients of the group.
        neighbours: k, even; from n - 1 on the graph is complete.
        threshold: t, how many holders of a client's secrets can open them.
        colluders: c, clients that work with the server, whoever they are.
        dropout: probability that another client's row does not arrive.

    >>> exposure(100, neighbours=20, threshold=15, colluders=20, dropout=0.0) < 1e-6
    True
    >>> exposure(100, neighbours=2, threshold=3, colluders=2, dropout=0.0) > 0.001
    True
    """
    if neighbours >= n - 1:
        return float(colluders >= threshold)
    from scipy.stats import binom, hypergeom

    honest = n - colluders
    left = np.arange(honest + 1)
    chances = binom.pmf(left, honest, dropout)
    split: float = sum(
        chance * two_wide_gaps(n, honest - gone, neighbours // 2)
        for gone, chance in zip(left.tolist(), chances.tolist(), strict=True)
        if chance > 1e-20  # the rest is less than any bound that is asked for
    )
    opened = honest * float(hypergeom.sf(threshold - 1, n - 1, colluders, neighbours))
    return min(1.0, split + opened)


def two_wide_gaps(n: int, stay: int, width: int) -> float:
    """At most how probable it is that two gaps between those that stay are that wide.

    Args:
        n: places on the circle, in random order.
        stay: how many of them are taken.
        width: of a gap, in places that are not.

    >>> two_wide_gaps(4, 2, 1)  # the two sit opposite in 2 of 6 ways
    0.3333333333333333
    """
    if stay < 2 or n - stay < 2 * width:
        return 0.0
    ways = math.comb(stay, 2) * math.comb(n - 1 - 2 * width, stay - 1)
    return min(1.0, ways / math.comb(n - 1, stay - 1))


def neighbours_needed(n: int, most: float, exposed: Callable[[int], float]) -> int | None:
    """The fewest neighbours whose exposure is at most `most`; None: only all will do."""
    enough = (k for k in range(2, n - 1, 2) if exposed(k) <= most)
    return next(enough, None)
