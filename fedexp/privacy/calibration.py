"""Calibration: the least noise whose history stays within a target epsilon.

    z = min { z : epsilon([(z, q, steps)], delta) <= target }

by bisection, since epsilon falls as z grows. For one release at q = 1 the answer has a closed form,
see `analytic_gaussian`.
"""

from __future__ import annotations

from collections.abc import Callable

from fedexp.core.checks import InputError, at_least, positive
from fedexp.privacy.accounting import Event, check_accountant, check_delta, epsilon

LEAST_NOISE, MOST_NOISE = 2.0**-14, 2.0**14
PRECISION = 1e-4  # relative


def calibrated_noise_multiplier(
    target_epsilon: float, delta: float, sample_rate: float, steps: int, accountant: str
) -> float:
    """The least noise multiplier z that keeps `steps` releases within the target.

    The answer itself keeps within it, and is above the least by at most one part in 10,000.

    Args:
        target_epsilon: the epsilon to stay at or below.
        delta: of the guarantee.
        sample_rate: q, the probability with which each member takes part in a release.
        steps: how many releases.
        accountant: "prv" or "rdp".

    Raises:
        InputError: an argument is out of range, or no noise is enough: every accountant has a
            floor, about 5e-5 at delta = 1e-5.

    >>> round(calibrated_noise_multiplier(3.0, 1e-5, 0.01, 1000, "rdp"), 3)
    0.865
    """
    positive(target_epsilon=target_epsilon, sample_rate=sample_rate)
    at_least(1, steps=steps)
    check_delta(delta)
    check_accountant(accountant)

    def spent(noise_multiplier: float) -> float:
        return epsilon([Event(noise_multiplier, sample_rate, steps)], delta, accountant).epsilon

    about = f" ({accountant}, sample_rate={sample_rate:g}, steps={steps}, delta={delta:g})"
    return least_noise(spent, target_epsilon, PRECISION, about)


def least_noise(
    spent: Callable[[float], float], target_epsilon: float, precision: float, about: str = ""
) -> float:
    """The least z with spent(z) <= target, to a relative `precision`, for any accountant.

    Args:
        spent: epsilon for a noise multiplier; falls as that grows.
        target_epsilon: the epsilon to stay at or below.
        precision: how far above the least the answer may be, relative to it.
        about: what to add to the complaint that no noise is enough.

    Raises:
        InputError: no noise is enough.
    """
    low, high = 0.5, 1.0
    while spent(high) > target_epsilon:
        if high >= MOST_NOISE:
            raise InputError(
                f"out of reach: at noise_multiplier={high:g} epsilon is still "
                f"{spent(high):.4g}{about}",
                "target_epsilon",
                target_epsilon,
            )
        low, high = high, 2 * high
    while low > LEAST_NOISE and spent(low) <= target_epsilon:
        low, high = low / 2, low
    while high > (1 + precision) * low:
        middle = (low * high) ** 0.5
        if spent(middle) > target_epsilon:
            low = middle
        else:
            high = middle
    return high
