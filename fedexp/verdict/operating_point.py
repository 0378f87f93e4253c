"""From which probability on somebody is called ill: chosen on validation, used on test.

half          0.5
youden        where sensitivity + specificity - 1 is largest (Youden, Cancer 1950)
sensitivity   the highest at which a required sensitivity is kept
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from fedexp.core.checks import in_range, one_of

HALF = 0.5
NOBODY = float(np.nextafter(1.0, 2.0))  # no probability reaches it


@final
@dataclass(frozen=True)
class OperatingPoint:
    """How the threshold is chosen.

    Args:
        kind: half, youden or sensitivity.
        sensitivity: that is required, 0 to 1; of the last kind only.
    """

    kind: str = "half"
    sensitivity: float = 0.9

    def __post_init__(self) -> None:
        one_of(("half", "youden", "sensitivity"), operating_point=self.kind)
        in_range(0, 1, sensitivity=self.sensitivity)

    def threshold(self, truth: np.ndarray, ill: np.ndarray) -> float:
        """The threshold, from truths `[n]` of 0 and 1 and the probabilities of 1 `[n]`.

        One half where validation has not both of them, or a probability is not finite.

        >>> truth, ill = np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.3, 0.8])
        >>> OperatingPoint("sensitivity", 1.0).threshold(truth, ill)
        0.3
        """
        from sklearn.metrics import roc_curve

        if self.kind == "half" or len(np.unique(truth)) < 2 or not np.isfinite(ill).all():
            return HALF
        healthy, found, thresholds = roc_curve(truth, ill, drop_intermediate=False)
        if self.kind == "youden":
            chosen = int((found - healthy).argmax())
        else:
            chosen = int(np.flatnonzero(found >= self.sensitivity)[0])
        return float(min(thresholds[chosen], NOBODY))
