"""The Skellam mechanism: every client adds a share of the noise, and only the noisy sum is seen.

    client:  row clipped to L2 norm C, times s, rounded at random until ||q|| <= D2, plus noise
    noise:   Poisson(v / 2) - Poisson(v / 2), variance v = mu / t;   mu = (z C s)^2
    RDP(a) = a D2^2 / (2 mu) + min(((2a - 1) D2^2 + 6 D1) / (4 mu^2), 3 D1 / (2 mu)),  a = 2, 3, ...
    D2^2 = min((s C + sqrt(d))^2, (s C)^2 + d/4 + sqrt(2 ln(1/beta)) (s C + sqrt(d)/2))
    D1 = min(D2^2, sqrt(d) D2);   beta = e^-1/2

A sum of Skellam variables is one (discrete Gaussians' are not), so that at least t survivors leave
at least mu in the sum; more survivors leave more. t is the threshold of secure aggregation and not
the number of clients: with that, every dropout would take noise away. Neighbours are sums with and
without one client (its row zero); the number of survivors is public. Clients that work with the
server know their own noise: the promise then needs t honest survivors. And noise comes from the
run's seed, so that runs can be repeated: it hides nothing from those who know the seed.

Source: Agarwal, Kairouz and Liu, "The Skellam Mechanism for Differentially Private Federated
Learning", NeurIPS 2021, theorem 3.1 and corollary; conditional rounding from Kairouz, Liu and
Steinke, "The Distributed Discrete Gaussian Mechanism", ICML 2021, proposition 22. The rotation that
they put before rounding is left out: it lowers the error, not epsilon.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import final

import numpy as np
from torch import Tensor

from fedexp.channel.encoder import Encoded, refuse_non_finite
from fedexp.channel.ring import Numbers
from fedexp.core.checks import InputError, at_least, positive
from fedexp.core.norms import clip_factors, row_norms

ORDERS = np.array([*range(2, 64), *(2**k for k in range(6, 19))])  # the bound is for whole ones
BETA = math.exp(-0.5)  # rounding fails at most this often, and is then repeated
LEAST = 1e-9  # standard deviation in whole numbers: of a smaller one no draw is ever but 0
TAIL = 6  # standard deviations of noise for which the ring has room


@final
@dataclass(frozen=True)
class Skellam:
    """Rows as whole numbers with a share of Skellam noise in each.

    Args:
        clip_norm: C, L2 norm to which a row is cut.
        noise_multiplier: z, standard deviation of the noise in the sum over C; None until it is
            calibrated.
        scale: s, whole numbers per unit; more are finer, and need more bits.
    """

    clip_norm: float
    noise_multiplier: float | None
    scale: float

    def __post_init__(self) -> None:
        positive(clip_norm=self.clip_norm, scale=self.scale)
        if self.noise_multiplier is not None:
            positive(noise_multiplier=self.noise_multiplier)
            if (deviation := self.noise_multiplier * self.clip_norm * self.scale) < LEAST:
                reason = (
                    f"is no noise in whole numbers: times clip_norm and scale it is {deviation:.1g}"
                    f" of one, and must be at least {LEAST:g}"
                )
                raise InputError(reason, "noise_multiplier", self.noise_multiplier)

    @property
    def multiplier(self) -> float:
        """z; raises InputError while it is not known."""
        if self.noise_multiplier is None:
            raise InputError("is not calibrated yet", "noise_multiplier", None)
        return self.noise_multiplier

    @property
    def variance(self) -> float:
        """mu: of the noise in a coordinate of the sum, in whole numbers squared."""
        return (self.multiplier * self.clip_norm * self.scale) ** 2

    def l2_sensitivity(self, d: int) -> float:
        """D2: the largest L2 norm of a rounded row of d coordinates, in whole numbers."""
        longest, root = self.clip_norm * self.scale, math.sqrt(d)
        likely = longest**2 + d / 4 + math.sqrt(2 * math.log(1 / BETA)) * (longest + root / 2)
        return min(longest + root, math.sqrt(likely))

    def noise_share(self, d: int, survivors: int, rng: np.random.Generator) -> Numbers:
        """One client's noise `[d]` int64: `survivors` of them hold the full variance."""
        rate = self.variance / survivors / 2
        return rng.poisson(rate, d) - rng.poisson(rate, d)

    def encode(self, row: Numbers, survivors: int, rng: np.random.Generator) -> Encoded:
        """A noisy row `[d]` int64; counts all d coordinates as clipped where the row was cut.

        Raises:
            InputError: the row has NaN or Inf.
        """
        refuse_non_finite(row)
        scaled = row.astype(np.float64) * self.scale
        norm, longest = float(np.linalg.norm(scaled)), self.clip_norm * self.scale
        if norm > longest:
            scaled *= longest / norm
        rounded = self._round(scaled, rng).astype(np.int64)
        noisy = rounded + self.noise_share(len(row), survivors, rng)
        return Encoded(noisy, len(row) if norm > longest else 0)

    def bounded(self, rows: Tensor) -> Tensor:
        """Every row within the clip norm."""
        return rows * clip_factors(row_norms(rows), self.clip_norm)[:, None].to(rows)

    def _round(self, scaled: Numbers, rng: np.random.Generator) -> Numbers:
        bound = self.l2_sensitivity(len(scaled))
        while True:
            rounded = np.floor(scaled + rng.random(len(scaled)))
            if float(rounded @ rounded) <= bound**2:
                return rounded

    def decode(self, total: Numbers, weight: int) -> Numbers:
        """The noisy mean row `[d]` float32."""
        return (total / (self.scale * weight)).astype(np.float32)

    def largest_sum(self, clients: int, survivors: int, d: int) -> int:
        """Everybody at the full norm in one coordinate, and the noise's tail."""
        noise = TAIL * math.sqrt(self.variance * clients / survivors)
        return math.ceil(clients * self.l2_sensitivity(d) + noise)

    def rdp(self, d: int) -> Numbers:
        """Rényi differential privacy of one round at `ORDERS`, for rows of d coordinates.

        >>> Skellam(clip_norm=1.0, noise_multiplier=1.0, scale=2.0**16).rdp(21_840)[:2].round(4)
        array([1. , 1.5])
        """
        d2, mu = self.l2_sensitivity(d), self.variance
        d1 = min(d2**2, math.sqrt(d) * d2)
        beyond_gaussian = np.minimum(
            ((2 * ORDERS - 1) * d2**2 + 6 * d1) / (4 * mu**2), 3 * d1 / (2 * mu)
        )
        rdp: Numbers = ORDERS * d2**2 / (2 * mu) + beyond_gaussian
        return rdp

    def epsilon(self, d: int, rounds: int, delta: float) -> float:
        """Epsilon of so many rounds in which a client took part; no amplification by sampling.

        Raises:
            InputError: delta does not lie strictly between 0 and 1.
        """
        # Imported here: opacus takes seconds, and only who accounts needs it.
        from opacus.accountants.analysis.rdp import get_privacy_spent

        at_least(0, rounds=rounds)
        if not 0 < delta < 1:
            raise InputError("must lie strictly between 0 and 1", "delta", delta)
        if rounds == 0:
            return 0.0
        with warnings.catch_warnings():
            # Its advice to try orders below 2 cannot be followed: the bound is for whole ones.
            warnings.filterwarnings("ignore", message="Optimal order is the")
            epsilon, _ = get_privacy_spent(
                orders=ORDERS.tolist(), rdp=(rounds * self.rdp(d)).tolist(), delta=delta
            )
        return max(0.0, float(epsilon))
