"""Whether a sampler draws as it says, tried on draws that no round uses.

An account counts on more than on how often a client is drawn. A cohort of everybody or nobody, or
of neighbours in a row, has every client at the same rate, and whoever sees the others take part
knows who was drawn. So pairs of clients are counted, too; and a cohort must follow from the stream
that it is drawn from, as one that follows from the last cohort is none by chance.
"""

from __future__ import annotations

import copy

import numpy as np

from fedexp.core.cohort import drawn
from fedexp.core.protocols import Sampler
from fedexp.core.rng import generator

NEVER = 1e-9  # how improbable draws must be before they contradict what a sampler says of itself
DRAWS = 1000
NUMBERS = 10**7  # of clients in all draws together
CLIENTS = 50  # whose pairs are counted: the first ones


def contradiction(sampler: Sampler, n: int, kind: str, rate: float) -> str:
    """What of its draws contradicts a sampler's word; "": nothing.

    Args:
        sampler: left as it is.
        n: clients.
        kind: "poisson" or "fixed_size".
        rate: of each client.
    """
    from scipy.stats import binom

    tried = copy.deepcopy(sampler)
    some, draws = min(n, CLIENTS), max(20, min(DRAWS, NUMBERS // n))

    def cohort(draw: int) -> np.ndarray:
        marks = np.zeros(n)
        marks[drawn(tried, n, generator(0, "tried draws", draw))] = 1
        return marks

    once, again = cohort(0), cohort(0)
    there = np.stack([cohort(draw)[:some] for draw in range(draws)])
    if not np.array_equal(once, again) or not np.array_equal(once, cohort(0)):
        return "draws another cohort from the same stream, so that it goes by earlier rounds"
    size = round(rate * n)
    both = rate**2 if kind == "poisson" else size * (size - 1) / max(1, n * (n - 1))
    counts = (there.T @ there)[np.triu_indices(some, 1)]
    for count in {counts.min(), counts.max()} if len(counts) else ():
        beyond = min(binom.sf(count - 1, draws, both), binom.cdf(count, draws, both))
        if len(counts) * beyond < NEVER:
            return (
                f"draws two clients together in {int(count)} of {draws} cohorts that were tried, "
                f"where {both * draws:.4g} are to be expected"
            )
    return ""
