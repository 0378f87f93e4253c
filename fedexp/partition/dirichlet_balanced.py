"""Label skew by client: each client has a class mix of its own, and all hold equally much."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from fedexp.core.checks import positive
from fedexp.core.examples import Split
from fedexp.core.partition import Partition
from fedexp.partition.assign import (
    assign_classes,
    check_enough,
    check_one_class,
    class_sizes,
    log_dirichlet,
    near_equal_sizes,
    proportions,
)


@final
@dataclass(frozen=True)
class DirichletBalanced:
    """Each client draws a class mix q ~ Dir(alpha * p); sizes differ by at most one.

    Source: Hsu, Qi and Brown, "Measuring the Effects of Non-Identical Data Distribution for
    Federated Visual Classification", 2019, section 3. The prior p is the class mix of the training
    part (uniform in their experiments). So alpha is the *sum* of the concentrations: with ten equal
    classes each gets alpha / 10, and one alpha means more skew here than in `Dirichlet`.

    Examples are drawn without replacement, all of them. All clients draw the classes of what they
    lack from their mixes at once; a class wanted more often than it has examples serves
    that many of the wishes, chosen at random, and is then empty. Its mass goes to the classes that
    are left, in each client's own proportions, and the wishes that were not served are drawn again.
    The paper does not say what happens at this point. It makes the mixes that come out a little
    flatter than those drawn, the more so the smaller alpha is, and favours no client.

    Args:
        alpha: concentration, a finite number above 0. Towards 0 a client holds one class as far as
            examples last, towards infinity the partition is IID.

    Raises:
        InputError: alpha is not a finite number above 0.
    """

    alpha: float

    def __post_init__(self) -> None:
        positive(alpha=self.alpha)

    def __call__(self, train: Split, n_clients: int, rng: np.random.Generator) -> Partition:
        """Assign `train` to `n_clients`.

        Raises:
            InputError: more clients than examples, or several labels an example.
        """
        check_enough(train, n_clients)
        check_one_class(train, "dirichlet_balanced")
        _, pool = class_sizes(train)
        concentration = float(self.alpha) * (pool / pool.sum())
        log_mix = log_dirichlet(concentration, n_clients, rng)
        lacking = near_equal_sizes(len(train), n_clients)
        counts = np.zeros((n_clients, len(pool)), dtype=np.int64)
        # A pass that leaves somebody lacking has emptied a class: at most n_classes passes.
        while lacking.any():
            mix = proportions(np.where(pool > 0, log_mix, -np.inf))
            wanted = rng.multinomial(lacking, mix)
            for c in np.flatnonzero(wanted.sum(axis=0) > pool):
                wanted[:, c] = rng.multivariate_hypergeometric(wanted[:, c], pool[c])
            counts += wanted
            pool = pool - wanted.sum(axis=0)
            lacking = lacking - wanted.sum(axis=1)
        return assign_classes(train, counts, rng)
