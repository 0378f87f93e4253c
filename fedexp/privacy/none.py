"""No privacy mechanism: the rows and the step go on as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
from torch import Tensor

from fedexp.core.protection import Combination, Plan, Protection
from fedexp.core.stateless import Stateless
from fedexp.core.types import State, Updates


@final
@dataclass(frozen=True)
class NoPrivacy(Stateless):
    """Clips nothing, adds nothing, promises nothing."""

    does_nothing: ClassVar[bool] = True
    releases_every_round: ClassVar[bool] = False

    def refuse(self, parts: Combination) -> None:
        """Goes with everything."""

    def protect(self, plan: Plan, bare: Protection) -> Protection:
        """The run as it is."""
        return bare

    def on_client(self, updates: Updates, state: State, rng: np.random.Generator) -> Updates:
        """The updates unchanged; draws nothing."""
        return updates

    def on_receipt(self, updates: Updates, state: State) -> Updates:
        """The updates unchanged, with the weights that the clients reported."""
        return updates

    def on_step(
        self, step: Tensor, updates: Updates, state: State, rng: np.random.Generator
    ) -> tuple[Tensor, State]:
        """The step `[d]` unchanged; draws nothing."""
        return step, state
