"""The least Gaussian noise for (epsilon, delta), from the exact privacy curve.

A query of L2 sensitivity S with noise N(0, (z S)^2 I) is (epsilon, delta)-DP if and only if

    delta >= Phi(a) - e^epsilon Phi(-b),   a = 1 / (2 z) - epsilon z,   b = 1 / (2 z) + epsilon z

The textbook z = sqrt(2 ln(1.25 / delta)) / epsilon is proven for epsilon < 1 only: at delta = 1e-5
it is too small from epsilon = 8.42 on, and for 20 it gives 25.4.

Source: Balle and Wang, "Improving the Gaussian Mechanism for Differential Privacy: Analytical
Calibration and Optimal Denoising", ICML 2018, theorem 8.
"""

from __future__ import annotations

import math

from fedexp.core.checks import InputError, positive


def noise_multiplier_for(epsilon: float, delta: float) -> float:
    """The least z whose release is (epsilon, delta)-DP.

    Raises:
        InputError: epsilon is not above 0, or delta not between 0 and 1.

    >>> round(noise_multiplier_for(4.377178, 1e-5), 5)
    1.0
    """
    positive(epsilon=epsilon, delta=delta)
    if delta >= 1:
        raise InputError("must lie between 0 and 1, both excluded", "delta", delta)
    low, high = 0.0, 1.0
    while delta_of(high, epsilon) > delta:
        low, high = high, 2 * high
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        if delta_of(middle, epsilon) > delta:
            low = middle
        else:
            high = middle
    return high


def epsilon_of(noise_multiplier: float, delta: float) -> float:
    """The least epsilon with which noise of z times the sensitivity is (epsilon, delta)-DP.

    Raises:
        InputError: z is not above 0, or delta not between 0 and 1.

    >>> round(epsilon_of(1.0, 1e-5), 5)
    4.37718
    """
    positive(noise_multiplier=noise_multiplier, delta=delta)
    if delta >= 1:
        raise InputError("must lie between 0 and 1, both excluded", "delta", delta)
    if delta_of(noise_multiplier, 0.0) <= delta:
        return 0.0
    low, high = 0.0, 1.0
    while delta_of(noise_multiplier, high) > delta:
        low, high = high, 2 * high
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        if delta_of(noise_multiplier, middle) > delta:
            low = middle
        else:
            high = middle
    return high


def delta_of(noise_multiplier: float, epsilon: float) -> float:
    """The least delta with which noise of z times the sensitivity is (epsilon, delta)-DP."""
    from scipy.special import erfcx, ndtr

    z = noise_multiplier
    a, b = 1 / (2 * z) - epsilon * z, 1 / (2 * z) + epsilon * z
    # e^epsilon Phi(-b) in a form that cannot overflow, since epsilon - b^2 / 2 = -a^2 / 2.
    second = math.exp(-a * a / 2) * erfcx(b / math.sqrt(2)) / 2
    return float(ndtr(a) - second)
