"""How far the length of an update lies from what is usual: the simplest baseline.

    score = | x - median | / MAD       x: deviation of ||delta_k|| from its round's median

Blind to a change of direction: a flipped sign keeps the length. Source of the idea: norm bounding
in Sun, Kairouz, Suresh and McMahan, "Can You Really Backdoor Federated Learning?",
arXiv:1911.07963, 2019, section 3; a length that is too small is suspicious here too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from torch import Tensor

from fedexp.core.types import State


@final
@dataclass(frozen=True)
class Norm:
    """Robust deviations of an update's length.

    Args:
        sketch_size: numbers that an update is sketched to; 0, a length needs no direction. With as
            many as another detector's, the two have learned from the same when they begin to judge.
    """

    sketch_size: int | None = 0

    def fit(self, features: Tensor, seed: int) -> State:
        """Median and MAD of the first feature of honest rows `[m, p]`; no randomness."""
        lengths = features[:, 0]
        median = lengths.quantile(0.5)
        spread = 1.4826 * (lengths - median).abs().quantile(0.5)
        return {"median": median, "deviation": spread.clamp_min(1e-3)}

    def score(self, features: Tensor, fitted: State) -> Tensor:
        """Deviations of the rows of `features` `[n, p]`: `[n]` float64."""
        return ((features[:, 0] - fitted["median"]).abs() / fitted["deviation"]).double()

    def shapes(self, p: int) -> Mapping[str, tuple[int, ...]]:
        """Names and shapes of what `fit` gives."""
        return {"median": (), "deviation": ()}
