"""No detector: every update is trusted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np

from fedexp.core.stateless import Stateless
from fedexp.core.types import State, Updates, Verdict


@final
@dataclass(frozen=True)
class NoDetector(Stateless):
    """Has no opinion about anybody."""

    does_nothing: ClassVar[bool] = True

    def __call__(
        self, updates: Updates, state: State, rng: np.random.Generator
    ) -> tuple[Verdict, State]:
        """Everybody is trusted."""
        return Verdict.no_opinion(len(updates)), state
