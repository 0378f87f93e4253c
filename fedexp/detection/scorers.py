"""What a scorer is, and the scorers by name: a fitted detector in a file names the one it needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from fedexp.core.types import State
from fedexp.detection.autoencoder import Autoencoder
from fedexp.detection.norm import Norm
from fedexp.detection.pca import PCA


class Scorer(Protocol):
    """Learns what honest features look like; a frozen dataclass of numbers and words."""

    @property
    def sketch_size(self) -> int | None:
        """Numbers that a row is sketched to; None: the row itself; 0: only its norm is needed."""

    def fit(self, features: Tensor, seed: int) -> State:
        """What honest features `[m, p]` float32 look like; the same bits for the same seed."""

    def score(self, features: Tensor, fitted: State) -> Tensor:
        """How unlike them each row of `features` `[n, p]` is: `[n]` float64, larger is worse."""

    def shapes(self, p: int) -> Mapping[str, tuple[int, ...]]:
        """Names and shapes of what `fit` gives for `p` features."""


SCORERS: Mapping[str, type[Scorer]] = {"autoencoder": Autoencoder, "norm": Norm, "pca": PCA}
