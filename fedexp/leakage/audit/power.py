"""What an audit can see, before it is carried out: its power against too little noise.

A claim of (epsilon, delta) is that of one Gaussian release whose two worlds lie mu deviations
apart (`fedexp.privacy.analytic_gaussian`). With a share s of the noise they lie mu / s apart. How
often an audit with scores that are as good as that would raise the alarm is counted on made-up
scores, for falling s; real scores are worse, so that it may see less, and hardly more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np

from fedexp.privacy.analytic_gaussian import noise_multiplier_for

SHARES = (1 / 2, 1 / 3, 1 / 4, 1 / 6, 1 / 10, 1 / 30, 1 / 100)  # of the noise that is claimed
TRIALS = 60
OFTEN = 0.8  # of the trials: what counts as seen
PURE_DELTA = 1e-6  # in the place of a delta of 0, which no Gaussian has

Alarm = Callable[[float, np.random.Generator], bool]
"""(separation in deviations, rng) -> whether an audit with made-up scores raises the alarm."""


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
            f"at best it sees noise of 1/{1 / self.share:.0f} of what is claimed (in "
            f"{self.seen:.0%} of audits); less sabotage passes unseen"
        )


def power(alarm: Alarm, epsilon: float, delta: float, rng: np.random.Generator) -> Power:
    """Against a claim of (epsilon, delta)."""
    claimed = 1 / noise_multiplier_for(epsilon, delta or PURE_DELTA)
    for share in SHARES:
        seen = float(np.mean([alarm(claimed / share, rng) for _ in range(TRIALS)]))
        if seen >= OFTEN:
            return Power(share, seen)
    return Power(None, 0.0)
