"""Who masks with whom, and who holds shares of whose secrets.

Complete: everybody with everybody, n - 1 masks a client. Neighbours: a random k-regular graph, the
clients on a circle in random order, each joined to the k / 2 next ones on either side; k masks a
client, and n k instead of n^2 messages. A client's secrets are held by itself and its neighbours.

With k neighbours the sum is safe only as long as the honest clients stay connected and no client
has a threshold of dishonest neighbours: k grows with log n, and with the share of dishonest or
dropping clients (about 100 for 10^4 clients of which a third is either).

Source: complete, Bonawitz et al., "Practical Secure Aggregation for Privacy-Preserving Machine
Learning", CCS 2017; neighbours, Bell et al., "Secure Single-Server Aggregation with
(Poly)Logarithmic Overhead", CCS 2020, section 3 and appendix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
