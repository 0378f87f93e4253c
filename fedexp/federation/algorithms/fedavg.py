"""FedAvg: clients train, the server adds the mean of what they changed. Nothing is kept.

With `training.proximal` it is FedProx, whose term is a part of the local training.

Source: McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data",
AISTATS 2017, algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from fedexp.core.protocols import Trainer
from fedexp.core.types import Sent, State


@final
@dataclass(frozen=True)
class FedAvg:
    """Adds nothing to local training, to the messages, or to the server's step."""

    does_nothing: ClassVar[bool] = True
    sends: ClassVar[tuple[Sent, ...]] = ()

    def init(self, d: int) -> State:
        """No state."""
        return {}

    def client_init(self, d: int) -> State:
        """Clients keep nothing."""
        return {}

    def broadcast(self, state: State) -> State:
        """The model is all."""
        return {}

    def local(self, trainer: Trainer) -> Trainer:
        """The trainer itself."""
        return trainer

    def server_step(self, step: Tensor, state: State, share: float) -> tuple[Tensor, State]:
        """The step `[d]` as it is."""
        return step, state
