"""Label skew by class: each class is spread unevenly over the clients, and sizes vary with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from fedexp.core.checks import InputError, at_least, positive
from fedexp.core.examples import Split
from fedexp.core.partition import Partition
from fedexp.partition.assign import (
    assign_classes,
    check_enough,
    check_one_class,
    class_sizes,
    log_dirichlet,
    proportions,
)


@final
@dataclass(frozen=True)
class Dirichlet:
    """For each class c, draw p_c ~ Dir_n(alpha, ..., alpha) and give client k its share p_c[k].

    The draw is over the n *clients*, once a class, so the sizes of the clients vary too. This is
    the simulation in the experiments of Yurochkin et al., "Bayesian Nonparametric Federated
    Learning of Neural Networks", ICML 2019. It is not that of Hsu et al. 2019, where every *client*
    draws a mix over the classes and all sizes are equal: see `DirichletBalanced`.

    Much code for this simulation does two things more. It stops feeding a client that holds more
    than its even share (`balanced`), which is not in the paper: class after class, those clients'
    shares are 0 and the others' are scaled up. And it draws again until every client has some
    number of examples, often 10; that is `min_size`, so what is sampled is the law above, given
    that nobody falls short.

    Args:
        alpha: concentration, a finite number above 0. Towards 0 each class goes to one client,
            towards infinity the partition is IID.
        min_size: the fewest examples that a client may hold, at least 1.
        max_tries: how many draws are made before giving up, at least 1.
        balanced: whether a client that holds more than its even share of all examples gets none of
            the classes that are left, in the order of their labels: the default of Flower's
            `DirichletPartitioner` (self_balancing). Sizes are then nearer to each other.

    Raises:
        InputError: an argument is outside its range.
    """

    alpha: float
    min_size: int
    max_tries: int
    balanced: bool = False  # as before there was such a key

    def __post_init__(self) -> None:
        positive(alpha=self.alpha)
        at_least(1, min_size=self.min_size, max_tries=self.max_tries)

    def __call__(self, train: Split, n_clients: int, rng: np.random.Generator) -> Partition:
        """Assign `train` to `n_clients`.

        Raises:
            InputError: too few examples for so many clients, several labels an example, or no draw
                among `max_tries` gave every client `min_size` examples.
        """
        check_enough(train, n_clients, self.min_size)
        check_one_class(train, "dirichlet")
        _, sizes = class_sizes(train)
        smallest_seen = 0
        for _ in range(self.max_tries):
            counts = self._draw(sizes, n_clients, rng)
            smallest = int(counts.sum(axis=1).min())
            if smallest >= self.min_size:
                return assign_classes(train, counts, rng)
            smallest_seen = max(smallest_seen, smallest)
        raise InputError(
            f"in {self.max_tries} draws the smallest of {n_clients} clients held at most "
            f"{smallest_seen} of {len(train)} examples, and min_size is {self.min_size}: use a "
            "larger alpha, fewer clients, a smaller min_size, more max_tries, or the partition "
            "dirichlet_balanced, whose sizes are equal",
            "alpha",
            self.alpha,
        )

    def _draw(self, sizes: np.ndarray, n_clients: int, rng: np.random.Generator) -> np.ndarray:
        """How many of each class's `sizes` `[n_classes]` each client gets: `[n, n_classes]`."""
        concentration = np.full(n_clients, float(self.alpha))
        logarithms = log_dirichlet(concentration, len(sizes), rng)
        shares = proportions(logarithms)
        even = sizes.sum() / n_clients if self.balanced else np.inf
        counts = np.zeros((n_clients, len(sizes)), dtype=np.int64)
        for c, size in enumerate(sizes):
            of_class, full = shares[c], counts.sum(axis=1) > even
            if full.any():
                (of_class,) = proportions(np.where(full, -np.inf, logarithms[c])[None])
            # Rounding the cuts, not the counts, makes every class add up; at the last cut the sum
            # of the shares is 1 only up to rounding, hence rint and not floor.
            cuts = np.rint(of_class.cumsum() * size).astype(np.int64)
            counts[:, c] = np.diff(cuts, prepend=0)
        return counts
