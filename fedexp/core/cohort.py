"""Who takes part in a round: what a sampler draws, held to what everybody counts on."""

from __future__ import annotations

import numpy as np

from fedexp.core.checks import InputError
from fedexp.core.protocols import Sampler
from fedexp.core.text import called

SHOWN = 60  # letters of what was drawn instead


def drawn(sampler: Sampler, n_clients: int, rng: np.random.Generator) -> np.ndarray:
    """A cohort: sorted client numbers, each once.

    A client that is there twice would move a sum twice as far as its noise is for.

    Raises:
        InputError: it is no such cohort.
    """
    made = sampler(n_clients, rng)
    try:
        cohort = np.asarray(made)
    except ValueError:  # of lists of several lengths
        cohort = np.empty((0, 0))
    if not cohort.size:
        cohort = cohort.astype(int)  # an empty list is one of nothing
    of_numbers = cohort.ndim == 1 and np.issubdtype(cohort.dtype, np.integer)
    ascending = of_numbers and bool((np.diff(cohort) > 0).all())
    if not ascending or (len(cohort) and not 0 <= cohort[0] <= cohort[-1] < n_clients):
        raise InputError(
            f"must draw client numbers from 0 to {n_clients - 1} in ascending order, each once, "
            f"and drew {_shown(made)}",
            "sampler",
            called(sampler),
        )
    return cohort


def _shown(made: object) -> str:
    """In a line, and not a long one."""
    line = " ".join(repr(made).split())
    return line if len(line) <= SHOWN else f"{line[:SHOWN]}..."
