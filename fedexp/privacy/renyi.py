"""Rényi divergences of the sampled Gaussian, and the epsilon that they imply.

    epsilon = min over orders a of  R_a + ln((a - 1) / a) - (ln delta + ln a) / (a - 1)

with R_a the divergence of order a, which adds up over releases. Bounds hold for any set of orders.
Opacus's, which end at 63, never say less than 0.10 at delta = 1e-5; these go down to 5e-5. The
large ones are whole, where the divergence is a finite sum of positive terms:

    (a - 1) R_a = ln sum_{k=0}^{a} C(a, k) (1 - q)^(a - k) q^k exp(k (k - 1) / (2 z^2))

(a - 1) R_a is convex in a, so that epsilon has one valley: small orders, whose series can take
seconds, and large ones are computed only where the valley is there.

Sources: Mironov, Talwar and Zhang, "Rényi Differential Privacy of the Sampled Gaussian Mechanism",
arXiv 1908.10530, section 3.3 (the divergences, small and moderate ones as computed by Opacus);
Balle, Barthe, Gaboardi, Hsu and Sato, "Hypothesis Testing Interpretations and Rényi Differential
Privacy", AISTATS 2020, theorem 21 (the conversion); Mironov, "Rényi Differential Privacy", CSF
2017, proposition 3 (the older and looser one: R_a + ln(1 / delta) / (a - 1)).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

SMALL_ORDERS = tuple(1 + x / 10 for x in range(1, 100))
OPACUS_ORDERS = (*SMALL_ORDERS, *(float(a) for a in range(12, 64)))
MODERATE_ORDERS = (*OPACUS_ORDERS[len(SMALL_ORDERS) :], 80, 96, 128, 192, 256, 384, 512)
LARGE_ORDERS = tuple(2**k for k in range(10, 19))
ORDERS = np.array([*SMALL_ORDERS, *MODERATE_ORDERS])

BANDS: tuple[tuple[float, ...], ...] = (
    SMALL_ORDERS,
    MODERATE_ORDERS,
    *((order,) for order in LARGE_ORDERS),
)
SMALL, MODERATE, *LARGE = range(len(BANDS))  # computed together, and looked up by number

Release = tuple[float, float, int]
"""(noise multiplier, sample rate, how often) of one kind."""


@lru_cache(maxsize=8192)
def divergences(noise_multiplier: float, sample_rate: float, band: int) -> np.ndarray:
    """R_a of one release at the orders of BANDS[band]; infinite where it cannot be computed."""
    from opacus.accountants.analysis.rdp import compute_rdp

    if noise_multiplier == 0:
        return np.full(len(BANDS[band]), np.inf)

    def at(order: float) -> float:
        if order in LARGE_ORDERS:
            return _at_whole(noise_multiplier, sample_rate, int(order))
        try:
            found = compute_rdp(
                q=sample_rate, noise_multiplier=noise_multiplier, steps=1, orders=[order]
            )
        except (ArithmeticError, ValueError):
            return math.inf
        return math.inf if math.isnan(found[0]) else max(0.0, float(found[0]))

    with np.errstate(all="ignore"):
        return np.array([at(order) for order in BANDS[band]])


def _at_whole(noise_multiplier: float, sample_rate: float, order: int) -> float:
    """R_a of a whole order, all terms at once; rounding never makes it smaller."""
    from scipy.special import gammaln, logsumexp

    if sample_rate == 1:
        return order / (2 * noise_multiplier**2)
    k = np.arange(order + 1)
    terms = gammaln(order + 1) - gammaln(k + 1) - gammaln(order - k + 1)
    terms += k * math.log(sample_rate) + (order - k) * math.log1p(-sample_rate)
    terms += k * (k - 1) / (2 * noise_multiplier**2)
    rounding = 8 * np.finfo(np.float64).eps * float(gammaln(order + 1))
    found = (float(logsumexp(terms)) + rounding) / (order - 1)
    return math.inf if math.isnan(found) else max(0.0, found)


def total(releases: Sequence[Release], band: int) -> np.ndarray:
    """R_a of all releases together at the orders of BANDS[band]."""
    summed = np.zeros(len(BANDS[band]))
    for noise_multiplier, sample_rate, steps in releases:
        summed += steps * divergences(noise_multiplier, sample_rate, band)
    return summed


@lru_cache
def _conversion(delta: float, band: int) -> tuple[np.ndarray, np.ndarray]:
    """What the bound on epsilon has beside R_a: its two other terms."""
    a = np.array(BANDS[band])
    return np.log((a - 1) / a), (math.log(delta) + np.log(a)) / (a - 1)


def epsilon_of(releases: Sequence[Release], delta: float) -> float:
    """The epsilon of all releases together, never below 0.

    >>> round(epsilon_of([(1.0, 0.01, 1000)], 1e-5), 4)
    2.1014
    """

    def bounds(band: int) -> np.ndarray:
        more, less = _conversion(delta, band)
        found: np.ndarray = total(releases, band) + more - less
        return found

    moderate = bounds(MODERATE)
    place = int(moderate.argmin())
    lowest = float(moderate[place])
    if place == 0:  # also where none could be computed
        lowest = min(lowest, float(bounds(SMALL).min()))
    if place == len(moderate) - 1:
        for band in LARGE:
            found = float(bounds(band)[0])
            if found >= lowest:
                break
            lowest = found
    return max(0.0, lowest)


def epsilon_of_2017(releases: Sequence[Release], delta: float) -> float:
    """The same by the conversion of 2017, at Opacus's orders."""
    spent = np.concatenate([total(releases, SMALL), total(releases, MODERATE)])
    orders = np.array(OPACUS_ORDERS)
    return float((spent[: len(orders)] + math.log(1 / delta) / (orders - 1)).min())
