"""What an audit can see, before it is carried out: its power against too little noise.

How often an audit would raise the alarm is counted on made-up scores (`sight`), for ever smaller
shares of the noise that is claimed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np

SHARES = (
    0.99,
    0.98,
    0.95,
    0.9,
    0.7,
    0.5,
    0.3,
    0.2,
    0.1,
    0.03,
    0.01,
)  # of the noise that is claimed
TRIALS = 40
OFTEN = 0.8  # of the trials: what counts as seen

Alarm = Callable[[float, np.random.Generator], bool]
"""(share of the noise, rng) -> whether an audit with made-up scores raises the alarm."""


@final
@dataclass(frozen=True)
class Power:
    """The least sabotage that an audit sees."""

    share: float | None  # of the noise; None: not even a hundredth of it
    seen: float  # how often the alarm was raised then

    def sentence(self) -> str:
        """For a person, before the audit."""
        if self.share is None:
            return "not even with a hundredth of the noise would this audit raise the alarm"
        return (
            f"at best it sees noise of {self.share:g} times what is claimed (in {self.seen:.0%} of "
            "audits); less sabotage passes unseen"
        )


def power(alarm: Alarm, rng: np.random.Generator) -> Power:
    """The largest share of the noise at which the alarm is raised often."""
    for share in SHARES:
        seen = float(np.mean([alarm(share, rng) for _ in range(TRIALS)]))
        if seen >= OFTEN:
            return Power(share, seen)
    return Power(None, 0.0)
