"""Who shares what: the same round loop on other shards, with the same total work.

`federated` is what the rest of the package describes. `centralised` is the upper bound that
federation is measured against, `local_only` what each client would have without it. In all three
the same number of examples passes through the gradient in a round (in expectation, where clients
are sampled, and up to the rounding of a last batch), from the same initial weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
import torch
from torch import Tensor

from fedexp.core.partition import Partition
from fedexp.core.protocols import Aggregator, Sampler, Trainer
from fedexp.core.shards import all_rows
from fedexp.core.stateless import Stateless
from fedexp.core.types import State, Updates


@final
@dataclass(frozen=True)
class Federated:
    """Clients train on their own data and share one model."""

    communicates: ClassVar[bool] = True
    shares_one_model: ClassVar[bool] = True

    def shards(self, partition: Partition) -> Sequence[np.ndarray]:
        """Every client's own."""
        return partition.shards

    def sampler(self, sampler: Sampler) -> Sampler:
        """The sampler that the config chose, unchanged: a cohort of clients each round."""
        return sampler

    def trainer(self, trainer: Trainer, n_clients: int, cohort_size: int) -> Trainer:
        """The trainer that the config chose, unchanged: each client trains on its own examples."""
        return trainer

    def aggregator(self, aggregator: Aggregator, n_clients: int) -> Aggregator:
        """The rule that the config chose, unchanged."""
        return aggregator

    def init(self, params: Tensor, n_clients: int) -> Tensor:
        """One model `[d]`."""
        return params

    def start(self, params: Tensor, client_id: int) -> Tensor:
        """The shared model."""
        return params

    def models(self, params: Tensor) -> Sequence[Tensor]:
        """The shared model."""
        return [params]


@final
@dataclass(frozen=True)
class Centralised:
    """One client holds the data of all, and does in a round the work of a whole cohort."""

    communicates: ClassVar[bool] = False
    shares_one_model: ClassVar[bool] = True

    def shards(self, partition: Partition) -> Sequence[np.ndarray]:
        """One shard: the union of all."""
        return (np.sort(all_rows(partition.shards)),)

    def sampler(self, sampler: Sampler) -> Sampler:
        """The one client, always."""
        return _Everybody()

    def trainer(self, trainer: Trainer, n_clients: int, cohort_size: int) -> Trainer:
        """As many example passes as `cohort_size` of `n_clients` clients make."""
        return trainer.spread(n_clients, cohort_size)

    def aggregator(self, aggregator: Aggregator, n_clients: int) -> Aggregator:
        """Nothing to combine: the one row is the step."""
        return _OnlyRow()

    def init(self, params: Tensor, n_clients: int) -> Tensor:
        """One model `[d]`."""
        return params

    def start(self, params: Tensor, client_id: int) -> Tensor:
        """The one model."""
        return params

    def models(self, params: Tensor) -> Sequence[Tensor]:
        """The one model."""
        return [params]


@final
@dataclass(frozen=True)
class LocalOnly:
    """Every client trains a model of its own, from the same start; nothing is shared."""

    communicates: ClassVar[bool] = False
    shares_one_model: ClassVar[bool] = False

    def shards(self, partition: Partition) -> Sequence[np.ndarray]:
        """Every client's own."""
        return partition.shards

    def sampler(self, sampler: Sampler) -> Sampler:
        """The sampler that the config chose: who is not drawn does not train."""
        return sampler

    def trainer(self, trainer: Trainer, n_clients: int, cohort_size: int) -> Trainer:
        """The trainer that the config chose, unchanged: each client trains on its own examples."""
        return trainer

    def aggregator(self, aggregator: Aggregator, n_clients: int) -> Aggregator:
        """Every row goes back to the client that it came from."""
        return _Alone(n_clients)

    def init(self, params: Tensor, n_clients: int) -> Tensor:
        """The same model for every client: `[n_clients, d]`."""
        return params.repeat(n_clients, 1)

    def start(self, params: Tensor, client_id: int) -> Tensor:
        """The client's own model."""
        return params[client_id]

    def models(self, params: Tensor) -> Sequence[Tensor]:
        """Every client's model, in client order."""
        return list(params)


class _Everybody:
    """The sampler of a setting in which there is nobody to choose from."""

    def __call__(self, n_clients: int, rng: np.random.Generator) -> np.ndarray:
        return np.arange(n_clients)


class _OnlyRow(Stateless):
    """The aggregator of a single client: [1, d] -> [d]."""

    def __call__(
        self, updates: Updates, state: State, rng: np.random.Generator
    ) -> tuple[Tensor, State]:
        return updates.matrix[0], state


@dataclass(frozen=True)
class _Alone(Stateless):
    """The aggregator that combines nothing: [n, d] -> [n_clients, d], 0 for who did not train."""

    n_clients: int

    def __call__(
        self, updates: Updates, state: State, rng: np.random.Generator
    ) -> tuple[Tensor, State]:
        step = updates.matrix.new_zeros(self.n_clients, updates.matrix.shape[1])
        step[torch.tensor(updates.client_ids)] = updates.matrix
        return step, state
