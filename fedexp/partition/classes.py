"""The specialist hospital: every client sees a few classes and none of the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

import numpy as np

from fedexp.core.checks import InputError, at_least, one_of
from fedexp.core.examples import Split
from fedexp.core.partition import Partition
from fedexp.partition.assign import (
    assign_classes,
    check_enough,
    check_one_class,
    class_sizes,
    near_equal_sizes,
)


@final
@dataclass(frozen=True)
class Classes:
    """Exactly `classes_per_client` classes a client; a class is shared evenly among its holders.

    The label-limited partition "#C = k" of Li et al., "Federated Learning on Non-IID Data Silos",
    ICDE 2022. There the classes are drawn freely, so that one may end up with nobody
    (`assignment="free"`: every client draws its classes without regard to the others). "even"
    assigns them as evenly as possible, so the numbers of holders of any two classes differ by at
    most one, and every class has a holder as soon as n_clients * classes_per_client reaches the
    number of classes. In both, **the examples of classes that nobody holds are left out** of the
    partition.

    Classes are those that occur in `train`.

    Args:
        classes_per_client: how many classes each client holds, from 1 to the number of classes.
        assignment: "even" or "free", see above.

    Raises:
        InputError: classes_per_client is not a whole number above 0, or no such assignment.
    """

    classes_per_client: int
    assignment: Literal["even", "free"] = "even"  # as before there was such a key

    def __post_init__(self) -> None:
        at_least(1, classes_per_client=self.classes_per_client)
        one_of(("even", "free"), assignment=self.assignment)

    def __call__(self, train: Split, n_clients: int, rng: np.random.Generator) -> Partition:
        """Assign `train` to `n_clients`.

        Raises:
            InputError: more clients than examples, several labels an example, more classes a client
                than there are, or a class with fewer examples than holders.
        """
        check_enough(train, n_clients)
        check_one_class(train, "classes")
        labels, sizes = class_sizes(train)
        if self.classes_per_client > len(labels):
            raise InputError(
                f"the training part has {len(labels)} classes: use at most {len(labels)}",
                "classes_per_client",
                self.classes_per_client,
            )
        held = self._assign(len(labels), n_clients, rng)
        n_holders = held.sum(axis=0)
        for c in np.flatnonzero(sizes < n_holders):
            raise InputError(
                f"class {labels[c]} has {sizes[c]} examples and {n_holders[c]} of {n_clients} "
                "clients would hold it: use fewer classes a client or fewer clients",
                "classes_per_client",
                self.classes_per_client,
            )
        counts = np.zeros(held.shape, dtype=np.int64)
        for c in np.flatnonzero(n_holders):
            counts[held[:, c], c] = near_equal_sizes(sizes[c], n_holders[c])
        return assign_classes(train, counts, rng)

    def _assign(self, n_classes: int, n_clients: int, rng: np.random.Generator) -> np.ndarray:
        """Who holds which class: `[n_clients, n_classes]` bool, k a row.

        Free, client after client takes them by lot. Even, it takes those with the fewest holders so
        far, ties broken by lot: by induction the numbers of holders never differ by more than one.
        """
        counted = int(self.assignment == "even")
        held = np.zeros((n_clients, n_classes), dtype=bool)
        n_holders = np.zeros(n_classes, dtype=np.int64)
        for client, lot in enumerate(rng.random((n_clients, n_classes))):
            held[client, np.argsort(counted * n_holders + lot)[: self.classes_per_client]] = True
            n_holders += held[client]
        return held
