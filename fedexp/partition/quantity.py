"""Quantity skew: everybody draws from the same pot, some far more than others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from fedexp.core.checks import at_least, in_range, one_of
from fedexp.core.examples import Split
from fedexp.core.partition import Partition
from fedexp.partition.assign import assign_sizes, check_enough


@final
@dataclass(frozen=True)
class Quantity:
    """Rows at random, sizes by a law: the label mix is the global one, the amounts are not.

    A client of weight w gets max(min_size, c * w) examples, with c such that all are assigned and
    fractions rounded by largest remainder. The weights:

    - `lognormal`: w = exp(sigma * z), z ~ N(0, 1) (Acar et al., "Federated Learning Based on
      Dynamic Regularization", ICLR 2021, unbalanced data).
    - `power_law`: w = rank^(-exponent), ranks 1 to n_clients at random (the kind of sizes in
      Li et al., "Federated Optimization in Heterogeneous Networks", MLSys 2020).

    Args:
        distribution: `lognormal` or `power_law`.
        sigma: deviation of the logarithm of the sizes, 0 (equal sizes) to 100; lognormal only.
        exponent: of the rank, 0 (equal sizes) to 100; power_law only.
        min_size: the fewest examples that a client holds, at least 1.

    Raises:
        InputError: an argument is outside its range.
    """

    distribution: str
    sigma: float
    exponent: float
    min_size: int

    def __post_init__(self) -> None:
        one_of(["lognormal", "power_law"], distribution=self.distribution)
        in_range(0, 100, sigma=self.sigma, exponent=self.exponent)
        at_least(1, min_size=self.min_size)

    def __call__(self, train: Split, n_clients: int, rng: np.random.Generator) -> Partition:
        """Assign `train` to `n_clients`.

        Raises:
            InputError: too few examples for so many clients.
        """
        check_enough(train, n_clients, self.min_size)
        if self.distribution == "lognormal":
            log_weights = self.sigma * rng.standard_normal(n_clients)
        else:
            log_weights = -self.exponent * np.log(rng.permutation(n_clients) + 1)
        weights = np.exp(log_weights - log_weights.max())
        return assign_sizes(train, sizes_by_weight(weights, len(train), self.min_size), rng)


def sizes_by_weight(weights: np.ndarray, total: int, min_size: int) -> np.ndarray:
    """Whole numbers `[n]` near max(min_size, c * weights), with c such that they sum to `total`.

    Args:
        weights: `[n]`, none negative and the largest above 0.
        total: the sum, at least n * min_size.
        min_size: the smallest number allowed.

    >>> sizes_by_weight(np.array([1.0, 2.0, 7.0]), total=20, min_size=1).tolist()
    [2, 4, 14]
    >>> sizes_by_weight(np.array([1.0, 2.0, 7.0]), total=20, min_size=4).tolist()
    [4, 4, 12]
    """
    raised = np.zeros(len(weights), dtype=bool)
    while True:
        left = total - min_size * np.count_nonzero(raised)
        share = np.where(raised, min_size, weights * (left / weights[~raised].sum()))
        # The tolerance keeps shares that equal min_size up to rounding from being raised, which
        # could leave nobody to hold the rest.
        short = share < min_size * (1 - 1e-9)
        if not short.any():
            break
        raised |= short
    sizes = np.maximum(np.floor(share), min_size).astype(np.int64)
    largest_remainders = np.argsort(sizes - share, kind="stable")
    sizes[largest_remainders[: total - sizes.sum()]] += 1
    return sizes
