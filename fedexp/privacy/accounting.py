"""Accounting: the epsilon that a history of noised sums has cost, for a given delta.

A history is a list of events, each `steps` releases of

    sum over a Poisson sample (rate q) of vectors no longer than S,  plus N(0, (z S)^2 I)

with z the `noise_multiplier`. Two accountants add such losses up, and both give an upper bound:

    prv   the distribution of the privacy loss, composed by FFT; above the truth by about 0.01, and
          by about a hundredth of it below 1, as far as a grid of the size that takes seconds allows
    rdp   the Rényi divergences, which add; looser by a tenth or so, and never fails

Who asks for prv gets the smaller of the two bounds: both hold.

Neighbours differ in one member added or removed (an example, or a client with all its data; at
q = 1 any two inputs whose sums differ by S). Not valid, and not offered:

    q_client q_batch as the rate of local steps: the steps of a round share one coin;
    the sampling of clients against a server that sees who answers;
    the Poisson rate for shuffled batches or cohorts of a fixed size (see `fixed_size`);
    the Gaussian limit (Opacus's `gdp`): it is no bound, and says 1.62 where 1.83 is spent.

Sources: Gopi, Lee and Wutschitz, "Numerical Composition of Differential Privacy", NeurIPS 2021
(prv); for rdp see `renyi`. The numbers are Opacus's; what Opacus lets through (exceptions, negative
answers, answers spoilt by rounding, hundreds of gigabytes) stops here.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Protocol, final

import numpy as np

from fedexp.core.checks import InputError, at_least, in_range, one_of
from fedexp.privacy.analytic_gaussian import delta_of
from fedexp.privacy.renyi import epsilon_of, epsilon_of_2017

Accountant = Literal["prv", "rdp"]
ACCOUNTANTS: tuple[Accountant, ...] = ("prv", "rdp")
Adjacency = Literal["add_remove", "zero_out", "replace_one"]
"""Neighbours: with a member or without; with its row or zeros, where who takes part is known (as in
cohorts of a fixed size); with the member or another in its place."""

MOST_NOISE = 1e6  # and MOST_STEPS: beyond, rounding errors decide
MOST_STEPS = 10**9
EPSILON_ERROR = 0.01  # of prv, each way; a hundredth of epsilon where that is less
LARGEST_GRID = 2**21  # points: two seconds and half a gigabyte
FINE_GRID = 2**18  # points that a smaller error than EPSILON_ERROR is worth: a third of a second


@final
@dataclass(frozen=True, order=True)
class Event:
    """Releases of one kind.

    Args:
        noise_multiplier: z, standard deviation of the noise in units of the sensitivity; 0 hides
            nothing.
        sample_rate: q, the probability with which each member takes part in a release.
        steps: how many releases, those with an empty sample included.
    """

    noise_multiplier: float
    sample_rate: float
    steps: int

    def __post_init__(self) -> None:
        in_range(0, MOST_NOISE, noise_multiplier=self.noise_multiplier)
        in_range(0, 1, sample_rate=self.sample_rate)
        at_least(0, steps=self.steps)
        in_range(0, MOST_STEPS, steps=self.steps)


@final
@dataclass(frozen=True)
class Guarantee:
    """What may be said: (epsilon, delta)-DP, for which neighbours, and who says so."""

    epsilon: float  # an upper bound; infinite where nothing is promised
    delta: float
    accountant: str  # the one that gave the answer, not the one that was asked
    adjacency: Adjacency
    note: str  # what a reader should know, a sentence; "" for nothing


def epsilon(history: Iterable[Event], delta: float, accountant: str) -> Guarantee:
    """The epsilon of a history, whatever the order and the splitting of its events.

    Where prv cannot answer (its grid would be too large, or rounding errors as large as delta),
    rdp does, and the note says why. Answers are cached.

    Raises:
        InputError: delta is not between 0 and 1, or there is no such accountant.

    >>> history = [Event(noise_multiplier=1.0, sample_rate=0.01, steps=1000)]
    >>> guarantee = epsilon(history, 1e-5, "prv")
    >>> round(guarantee.epsilon, 2), guarantee.adjacency
    (1.84, 'add_remove')
    >>> epsilon([], 1e-5, "prv").epsilon
    0.0
    """
    check_delta(delta)
    check_accountant(accountant)
    return _guarantee(_merged(history), float(delta), accountant)


def profile(
    history: Iterable[Event], deltas: Iterable[float], accountant: str
) -> tuple[float, ...]:
    """The epsilons of a history for several deltas at once: its whole privacy curve.

    As sharp as `epsilon` up to a hundredth. Costs about as much as one epsilon. Answers are cached.

    Raises:
        InputError: a delta is not between 0 and 1, or there is no such accountant.

    >>> history = [Event(noise_multiplier=1.0, sample_rate=0.01, steps=1000)]
    >>> [round(e) for e in profile(history, (1e-5, 1e-2), "prv")]
    [2, 1]
    """
    deltas = tuple(float(delta) for delta in deltas)
    for delta in deltas:
        check_delta(delta)
    check_accountant(accountant)
    return _profile(_merged(history), deltas, accountant)


def check_delta(delta: float) -> None:
    """Refuse what is not a probability strictly between 0 and 1."""
    in_range(0, 1, delta=delta)
    if not 0 < delta < 1:
        raise InputError("must lie between 0 and 1, both excluded", "delta", delta)


def check_accountant(accountant: str) -> None:
    """Refuse accountants that are unknown, and the one that is wrong."""
    if accountant == "gdp":
        raise InputError(
            "the Gaussian limit is no bound: it says 1.62 where 1.83 is spent; use prv or rdp",
            "accountant",
            accountant,
        )
    one_of(ACCOUNTANTS, accountant=accountant)


def delta_remark(delta: float, population: int, unit: str) -> str:
    """A sentence where delta is too large for `population` members; "" where it is not.

    A mechanism that publishes one of n members at random, and nothing else, is (0, 1/n)-DP.

    >>> delta_remark(1e-3, 600, "examples")
    'delta=0.001 is above 1/(10 n) = 0.000166667 of n = 600 examples: use a smaller one'
    """
    at_least(1, population=population)
    if delta >= 1 / population:
        bound, why = f"1/n = {1 / population:g}", "to publish a whole member would be allowed"
        return f"delta={delta:g} is not below {bound} of n = {population} {unit}: {why}"
    if delta > 1 / (10 * population):
        bound = f"1/(10 n) = {1 / (10 * population):g}"
        return f"delta={delta:g} is above {bound} of n = {population} {unit}: use a smaller one"
    return ""


def gaussian_epsilon(noise_multiplier: float, delta: float, steps: int = 1) -> float:
    """The exact epsilon of `steps` releases at q = 1: they make up one with noise z / sqrt(steps).

    >>> round(gaussian_epsilon(1.0, 1e-5), 6), round(gaussian_epsilon(5.0, 1e-5, steps=100), 6)
    (4.377178, 9.997256)
    """
    from scipy.optimize import brentq

    event = Event(noise_multiplier, 1.0, steps)
    check_delta(delta)
    if steps == 0:
        return 0.0
    if event.noise_multiplier == 0:
        return math.inf
    z = noise_multiplier / math.sqrt(steps)
    if delta_of(z, 0.0) <= delta:
        return 0.0
    # At epsilon = 1 / (2 z^2) + t / z the loss, which is N(1 / (2 z^2), 1 / z^2), exceeds epsilon
    # with probability Phi(-t), of which delta is a part.
    most = 1 / (2 * z * z) + math.sqrt(2 * math.log(1 / delta)) / z
    return float(brentq(lambda e: delta_of(z, e) - delta, 0.0, most, xtol=1e-12))


def mironov_2017_epsilon(history: Iterable[Event], delta: float) -> float:
    """The epsilon as papers and READMEs before 2020 printed it; to compare with those only."""
    check_delta(delta)
    merged = _merged(history)
    return epsilon_of_2017(_kinds(merged), delta) if merged else 0.0


def _merged(history: Iterable[Event]) -> tuple[Event, ...]:
    """One event a kind, sorted, without those that release nothing."""
    steps: dict[tuple[float, float], int] = {}
    for event in history:
        if event.steps and event.sample_rate:
            kind = (float(event.noise_multiplier), float(event.sample_rate))
            steps[kind] = steps.get(kind, 0) + event.steps
    return tuple(sorted(Event(*kind, count) for kind, count in steps.items()))


class Composed(Protocol):
    """Opacus's distribution of the privacy loss of a whole history."""

    def compute_epsilon(
        self, delta: float, delta_error: float, eps_error: float
    ) -> tuple[float, float, float]:
        """(lower bound, estimate, upper bound)."""


@lru_cache(maxsize=8192)
def _guarantee(history: tuple[Event, ...], delta: float, accountant: Accountant) -> Guarantee:
    if not history:
        return Guarantee(0.0, delta, accountant, "add_remove", "")
    if any(event.noise_multiplier == 0 for event in history):
        note = "without noise there is no bound"
        return Guarantee(math.inf, delta, accountant, "add_remove", note)
    rdp = epsilon_of(_kinds(history), delta)
    if accountant == "prv":
        try:
            prv = _prv_epsilon(history, delta, rdp)
            if prv <= rdp:
                return Guarantee(prv, delta, "prv", "add_remove", "")
            note = f"prv's bound, {prv:.4g}, is above rdp's"
            return Guarantee(rdp, delta, "rdp", "add_remove", note)
        except (ArithmeticError, ValueError, RuntimeError, MemoryError, UserWarning) as failure:
            reason = str(failure) or type(failure).__name__
            note = f"prv cannot answer here ({reason}); rdp's bound is looser"
            return Guarantee(rdp, delta, "rdp", "add_remove", note)
    note = "" if rdp < math.inf else "so little noise that no bound can be computed"
    return Guarantee(rdp, delta, "rdp", "add_remove", note)


@lru_cache(maxsize=1024)
def _profile(
    history: tuple[Event, ...], deltas: tuple[float, ...], accountant: Accountant
) -> tuple[float, ...]:
    if not history:
        return (0.0,) * len(deltas)
    if any(event.noise_multiplier == 0 for event in history):
        return (math.inf,) * len(deltas)
    if accountant == "rdp":
        return tuple(epsilon_of(_kinds(history), delta) for delta in deltas)
    rdp = _profile(history, deltas, "rdp")
    finest, largest = min(deltas), max(rdp)
    error = max(_epsilon_error(history, finest, largest), largest / 100)
    try:
        composed = _composed(history, finest, error)
        with np.errstate(all="ignore"):
            prv = [composed.compute_epsilon(d, finest / 1000, error)[2] for d in deltas]
    except (ArithmeticError, ValueError, RuntimeError, MemoryError, UserWarning):
        return rdp
    # A NaN is no bound, and min would keep it or not by the order.
    return tuple(max(0.0, float(p)) if p <= r else r for p, r in zip(prv, rdp, strict=True))


def _kinds(history: tuple[Event, ...]) -> list[tuple[float, float, int]]:
    return [(e.noise_multiplier, e.sample_rate, e.steps) for e in history]


def _prv_epsilon(history: tuple[Event, ...], delta: float, rdp: float) -> float:
    """Opacus's upper bound.

    Raises:
        ArithmeticError, ValueError, RuntimeError, MemoryError, UserWarning: there is none.
    """
    error = _epsilon_error(history, delta, rdp)
    composed = _composed(history, delta, error)
    with np.errstate(all="ignore"):
        value = float(composed.compute_epsilon(delta, delta / 1000, error)[2])
    if not value <= rdp + 2 * EPSILON_ERROR:  # true for NaN
        raise ArithmeticError(f"it says {value:.4g} where {rdp:.4g} is enough")
    return max(0.0, value)


def _composed(history: tuple[Event, ...], delta: float, error: float) -> Composed:
    """The distribution of the privacy loss, on a grid for this delta.

    Raises:
        ArithmeticError, ValueError, RuntimeError, MemoryError, UserWarning: there is none.
    """
    from opacus.accountants import PRVAccountant
    from opacus.accountants.analysis.prv import Domain
    from scipy.integrate import IntegrationWarning

    half_width, mesh = _grid(history, delta, error)
    size = 2 * half_width / mesh
    if size * len(history) > LARGEST_GRID:
        raise ArithmeticError(
            f"its grid would have {size * len(history):.3g} points, above {LARGEST_GRID:.3g}"
        )
    # Opacus holds delta against the rounding errors of long doubles, but its FFT is in doubles.
    if size * np.finfo(np.float64).eps > delta / 100:
        raise ArithmeticError(f"rounding errors on {size:.3g} points are too large for this delta")

    class OnThisGrid(PRVAccountant):  # type: ignore[misc]
        """Opacus asks for every order of rdp again, and some take it seconds."""

        def _get_domain(self, **asked: object) -> Domain:
            return Domain.create_aligned(-half_width, half_width, mesh)

    accountant = OnThisGrid()
    accountant.history = _kinds(history)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", IntegrationWarning)
        composed: Composed = accountant._get_dprv(eps_error=error, delta_error=delta / 1000)
        return composed


def _epsilon_error(history: tuple[Event, ...], delta: float, rdp: float) -> float:
    """What prv may err by: relative to epsilon where that is small, as far as a grid allows."""
    wanted = max(min(EPSILON_ERROR, rdp / 100), EPSILON_ERROR * np.finfo(np.float64).eps)
    half_width, mesh = _grid(history, delta, wanted)
    affordable = wanted * 2 * half_width / mesh * len(history) / FINE_GRID
    return min(EPSILON_ERROR, max(wanted, affordable))


def _grid(history: tuple[Event, ...], delta: float, error: float) -> tuple[float, float]:
    """(half its width, distance of its points), by prv's own rule (remark 5.6 of Gopi et al.)."""
    steps, delta_error = sum(event.steps for event in history), delta / 1000
    half_width = 3 + max(
        epsilon_of(_kinds(history), delta_error / 4),
        *(
            epsilon_of([(e.noise_multiplier, e.sample_rate, 1)], delta_error / (8 * steps))
            for e in history
        ),
    )
    return half_width, error / math.sqrt(steps * math.log(12 / delta_error) / 2)
