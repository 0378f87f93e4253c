"""What the main directions of honest updates do not explain: the linear autoencoder.

    score = || x - V V' x ||^2         x: features in standard deviations of the honest ones

V holds the directions in which honest features vary most. A baseline for the autoencoder.

Source: Jackson and Mudholkar, "Control Procedures for Residuals Associated With Principal Component
Analysis", Technometrics 1979, section 2 (the Q statistic).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from fedexp.core.checks import at_least
from fedexp.core.types import State
from fedexp.detection.features import standardisation


@final
@dataclass(frozen=True)
class PCA:
    """Squared distance from the plane of the first principal components.

    Args:
        sketch_size: numbers that an update is sketched to before it is compared; None for none.
        components: dimensions of the plane.
    """

    sketch_size: int | None
    components: int

    def __post_init__(self) -> None:
        at_least(1, components=self.components)
        if self.sketch_size is not None:
            at_least(1, sketch_size=self.sketch_size)

    def fit(self, features: Tensor, seed: int) -> State:
        """Mean, deviation and directions, learned from honest features `[m, p]`; no randomness."""
        mean, deviation = standardisation(features)
        x = ((features - mean) / deviation).double()
        ascending = torch.linalg.eigh(x.T @ x).eigenvectors
        directions = ascending.flip(1)[:, : self._rank(x.shape[1])].T.float()
        return {"mean": mean, "deviation": deviation, "directions": directions.contiguous()}

    def score(self, features: Tensor, fitted: State) -> Tensor:
        """Squared distances of the rows of `features` `[n, p]` from the plane: `[n]` float64."""
        x = ((features - fitted["mean"]) / fitted["deviation"]).double()
        directions = fitted["directions"].double()
        return (x - x @ directions.T @ directions).square().sum(dim=1)

    def shapes(self, p: int) -> Mapping[str, tuple[int, ...]]:
        """Names and shapes of what `fit` gives for `p` features."""
        return {"mean": (p,), "deviation": (p,), "directions": (self._rank(p), p)}

    def _rank(self, p: int) -> int:
        return min(self.components, p)
