"""FoolsGold: clients whose updates resemble each other over the rounds learn less (sybils).

    H_k = sum of what client k has sent so far;   c_ij = cos(H_i, H_j),   v_i = max_j c_ij
    pardoning: c_ij <- c_ij v_i / v_j where v_j > v_i
    a_i = 1 - max_j c_ij, clipped to [0, 1], divided by the largest of them
    a_i <- kappa (ln(a_i / (1 - a_i)) + 1/2), clipped to [0, 1]
    step = sum_k a_k delta_k / sum_k a_k

Source: Fung, Yoon and Beschastnikh, "The Limitations of Federated Learning in Sybil Settings",
RAID 2020, algorithm 1, with the authors' code in three details: an own entry of 0 stands in both
maxima, an a_i of exactly 1 becomes 0.99 before the logit, and the result is clipped. Ours: the step
is a weighted mean, where the paper adds up a_k delta_k, because our rows are whole updates rather
than gradients; clients are compared with those who answered the same round; where everybody looks
like a sybil of another, all weigh the same. Of the features that the paper takes to indicate what a
client is after, those of the last layer can be compared alone (`features`); their weighting by
importance is left out. Breakdown point: any number of sybils that share one aim; none for a lone
attacker.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

import numpy as np
import torch
from torch import Tensor

from fedexp.core.checks import InputError, at_least, one_of, positive
from fedexp.core.norms import cosines, gram, weighted_sum
from fedexp.core.protocols import Aggregator
from fedexp.core.types import State, Updates

# Cosines of float32 rows are good to about 1e-7: what is nearer to 1 than this is 1.
RESOLUTION = 1e-6


@final
@dataclass(frozen=True)
class FoolsGold:
    """The mean of the rows, weighted by how little each resembles another: `[n, d]` to `[d]`.

    The state is one row a client, `[n_clients, d]` float32, in memory and in every checkpoint; of
    the last layer alone, where nothing else is compared.

    Args:
        n_clients: how many clients there are; ids run from 0 to n_clients - 1.
        confidence: kappa, how sharply the logit tells the similar from the others.
        features: which coordinates are compared: "all", or those of the "last_layer".
    """

    n_clients: int
    confidence: float
    features: Literal["all", "last_layer"] = "all"  # as before there was such a key

    def __post_init__(self) -> None:
        at_least(1, n_clients=self.n_clients)
        positive(confidence=self.confidence)
        one_of(("all", "last_layer"), features=self.features)

    def of_head(self, columns: slice) -> Aggregator:
        """The rule for a model whose last layer lies in these columns."""
        return self if self.features == "all" else _OfSome(self, columns)

    def init(self, d: int) -> State:
        """Nobody has sent anything: `history` `[n_clients, d]`."""
        return {"history": torch.zeros(self.n_clients, d)}

    def __call__(
        self, updates: Updates, state: State, rng: np.random.Generator
    ) -> tuple[Tensor, State]:
        """The step `[d]` and the histories with this round's rows added.

        Raises:
            InputError: a row is a mixture of clients, a client's number is n_clients or above, or
                nobody said where the last layer lies (`of_head`).
        """
        if self.features != "all":
            raise InputError("needs to know where it lies (of_head)", "features", self.features)
        return self.comparing(updates.matrix, updates, state)

    def comparing(self, compared: Tensor, updates: Updates, state: State) -> tuple[Tensor, State]:
        """The step `[d]` by the histories of `compared` `[n, any]`, and these with it added."""
        if min(updates.client_ids) < 0:
            raise InputError(
                "foolsgold follows every client by itself and cannot use rows that were mixed "
                "before (bucketing)"
            )
        if max(updates.client_ids) >= self.n_clients:
            raise InputError(
                f"client {max(updates.client_ids)} answered, and aggregator.n_clients says "
                f"that they end at {self.n_clients - 1}",
                "n_clients",
                self.n_clients,
            )
        matrix = updates.matrix
        clients = torch.tensor(updates.client_ids, device=matrix.device)
        history = state["history"].to(matrix.device).index_add(0, clients, compared)
        weights = foolsgold_weights(cosines(gram(history[clients])), self.confidence)
        if not weights.any():
            weights = torch.ones_like(weights)
        return weighted_sum(weights / weights.sum(), matrix), {"history": history}


@final
@dataclass(frozen=True)
class _OfSome:
    """FoolsGold on the histories of some columns; the step is of all."""

    rule: FoolsGold
    columns: slice

    def init(self, d: int) -> State:
        return {"history": torch.zeros(self.rule.n_clients, len(range(d)[self.columns]))}

    def __call__(
        self, updates: Updates, state: State, rng: np.random.Generator
    ) -> tuple[Tensor, State]:
        return self.rule.comparing(updates.matrix[:, self.columns], updates, state)


def foolsgold_weights(similarities: Tensor, confidence: float) -> Tensor:
    """a_i of algorithm 1 from the cosines of the histories: `[n, n]` to `[n]` in [0, 1].

    >>> twins_and_a_loner = torch.eye(3)
    >>> twins_and_a_loner[0, 1] = twins_and_a_loner[1, 0] = 1
    >>> foolsgold_weights(twins_and_a_loner, confidence=1)
    tensor([0., 0., 1.])
    """
    others = similarities.clone().fill_diagonal_(0)
    highest = others.max(dim=1).values
    pardoned = torch.where(
        highest[None, :] > highest[:, None], others * highest[:, None] / highest[None, :], others
    )
    weights = 1 - pardoned.max(dim=1).values
    weights = torch.where(weights < RESOLUTION, 0, weights)
    if not weights.any():
        return weights
    weights = weights / weights.max()
    weights = torch.where(weights == 1, 0.99, weights)
    return (confidence * (weights.logit() + 0.5)).clamp_(0, 1)
