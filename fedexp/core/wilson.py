"""The interval of a share that so many examples say (Wilson, JASA 22, 1927).

(p + z^2/2n ± z sqrt(p (1 - p)/n + z^2/4n^2)) / (1 + z^2/n)
"""

from __future__ import annotations

import numpy as np

Z = 1.959964  # of a level of 95 %


def wilson(share: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both ends of the 95 % intervals of shares `[k]`, or of one, of `size` examples each.

    In [0, 1]; a share lies in its own also where rounding would have it outside by a hair.

    >>> import numpy as np
    >>> low, high = wilson(np.array([1.0]), np.array([13]))
    >>> low.round(2), high
    (array([0.77]), array([1.]))
    """
    middle = (share + Z**2 / (2 * size)) / (1 + Z**2 / size)
    half = Z / (1 + Z**2 / size) * np.sqrt(share * (1 - share) / size + Z**2 / (4 * size**2))
    return np.clip(middle - half, 0, share), np.clip(middle + half, share, 1)
