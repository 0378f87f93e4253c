"""A share of everything for everybody, and the rest sorted by label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from fedexp.core.checks import in_range
from fedexp.core.examples import Split
from fedexp.core.partition import Partition
from fedexp.partition.assign import assign, check_enough, check_one_class


@final
@dataclass(frozen=True)
class Similarity:
    """A share gamma of the rows IID; the others sorted by label and cut in order of the clients.

    "gamma_similarity_niid" of González, Guerraoui, Pinot, Rizk, Stephan and Taïani, "ByzFL:
    Research Framework for Robust Federated Learning", 2025, after the s % similarity of
    Karimireddy et al., "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning", ICML
    2020, section 7. Rows of one label keep their order. ByzFL takes the first rows of the
    collection for the IID share, which is drawn at random here; where the numbers do not divide,
    who has a sorted row more has an IID one less, so that sizes differ by at most one.

    Args:
        gamma: from 0 (sorted: few classes a client) to 1 (IID); rounded down to whole rows.

    Raises:
        InputError: gamma is outside its range.
    """

    gamma: float

    def __post_init__(self) -> None:
        in_range(0, 1, gamma=self.gamma)

    def __call__(self, train: Split, n_clients: int, rng: np.random.Generator) -> Partition:
        """Assign `train` to `n_clients`.

        Raises:
            InputError: more clients than examples, or several labels an example.
        """
        check_enough(train, n_clients)
        check_one_class(train, "similarity")
        order = rng.permutation(len(train))
        shared = int(len(train) * self.gamma)
        rest = np.sort(order[shared:])
        by_label = rest[np.argsort(train.y.numpy()[rest], kind="stable")]
        owner = np.empty(len(train), dtype=np.int64)
        for client, rows in enumerate(np.array_split(by_label, n_clients)):
            owner[rows] = client
        # From the last client, as array_split makes the first ones larger.
        for client, rows in enumerate(np.array_split(order[:shared], n_clients)):
            owner[rows] = n_clients - 1 - client
        return assign(train, owner, n_clients)
