"""Whose examples are changed before training, where the mechanism has clients do that.

Each client has a stream of its own, keyed by the run's seed and its number alone, so that the noise
is the same in every round, on every backend and after a resume. The true examples stay with whoever
studies the run.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from fedexp.core.capabilities import PerturbsExamples
from fedexp.core.checks import InputError
from fedexp.core.examples import Split
from fedexp.core.rng import generator
from fedexp.core.shards import are_listed

PURPOSE = "input_noise"


def examples_trained_on(
    mechanism: object,
    train: Split,
    shards: Sequence[np.ndarray],
    as_they_are: np.ndarray,
    seed: int,
) -> Split:
    """The training part with the rows of every client as it trains on them.

    Args:
        mechanism: of the run's privacy; itself where it changes no example.
        train: what the clients hold.
        shards: whose rows are whose.
        as_they_are: `[n_clients]` bool: clients that train on theirs unchanged, as those do that
            made them up to do harm.
        seed: of the run.

    Raises:
        InputError: the clients are too many to be listed.
    """
    if not isinstance(mechanism, PerturbsExamples):
        return train
    if not are_listed(shards):
        raise InputError(
            f"changes the examples of every client, and {len(shards):,} are too many to be listed",
            "privacy",
            type(mechanism).__name__,
        )
    x = train.as_floats().x.clone()
    for client in np.flatnonzero(~as_they_are).tolist():
        held = torch.from_numpy(shards[client])
        x[held] = mechanism.perturbed(train.rows(held), generator(seed, PURPOSE, client)).x
    return train.with_x(x)
