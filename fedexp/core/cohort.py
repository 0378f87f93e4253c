"""Who takes part in a round: what a sampler draws, held to what everybody counts on."""

from __future__ import annotations

import numpy as np

from fedexp.core.capabilities import called
from fedexp.core.checks import InputError
from fedexp.core.protocols import Sampler


def drawn(sampler: Sampler, n_clients: int, rng: np.random.Generator) -> np.ndarray:
    """A cohort: sorted client numbers, each once.

    A client that is there twice would move a sum twice as far as its noise is for.

    Raises:
        InputError: it is no such cohort.
    """
    cohort = np.asarray(sampler(n_clients, rng))
    ascending = cohort.ndim == 1 and bool((np.diff(cohort) > 0).all())
    if not ascending or (len(cohort) and not 0 <= cohort[0] <= cohort[-1] < n_clients):
        raise InputError(
            f"must draw client numbers from 0 to {n_clients - 1} in ascending order, each once",
            "sampler",
            called(sampler),
        )
    return cohort
