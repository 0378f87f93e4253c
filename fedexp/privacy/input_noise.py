"""Noise on the data themselves: every client perturbs its examples once, before any training.

    u = (x - low) / (high - low), cut to [0, 1];   u cut to norm C where a clip norm is given
    x' = low + (high - low) (u + noise),           D numbers in an example
    Laplace:   noise of scale b on every number,   epsilon = S_1 / b,   S_1 = min(D, 2 C)
    Gaussian:  noise of deviation s,               (epsilon, delta) of z = s / S_2,
                                                   S_2 = min(sqrt(D), sqrt(2) C)

S is how far apart any two examples can be after the cuts, in L1 or L2, so the promise is local DP
for the values of one example: whatever they were, what is trained on looks almost alike. (Vectors
without a negative number have an inner product of at least 0, hence sqrt(2) C and not 2 C.) It is
spent once: the same perturbed examples are trained on in every round and after a resume, and all
that follows is post-processing, whoever sees it. The range is declared and not measured, which
would tell of the data.

A label is trained on as it is, and that there is an example, and whose, is no secret either. What
tutorials call epsilon, noise of scale 1 / epsilon on every number, is D times as much for an image.

Sources: Dwork, McSherry, Nissim and Smith, "Calibrating Noise to Sensitivity in Private Data
Analysis", TCC 2006; Balle and Wang, ICML 2018 (Gaussian, see `analytic_gaussian`); Kasiviswanathan
et al., "What Can We Learn Privately?", FOCS 2008 (local DP, randomised once).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, final

import numpy as np
import torch
from torch import Tensor

from fedexp.core.checks import InputError, positive
from fedexp.core.examples import Split
from fedexp.core.protection import Combination, Plan, Protection
from fedexp.core.types import Delivery, State, Updates
from fedexp.privacy.account import NOT_COVERED, SEEDED, Description, PrivacyAccount
from fedexp.privacy.accounting import Guarantee
from fedexp.privacy.analytic_gaussian import epsilon_of, noise_multiplier_for
from fedexp.privacy.terms import (
    Target,
    Terms,
    as_number,
    check_limits,
    check_noise_is_given_once,
    refuse_no_noise,
)

UNIT = "the values of one example of one client, not its label"
NOT_THE_VALUES = (
    "labels, which are trained on as they are",
    "that an example exists, and which client holds it",
)
ONCE = (
    "is spent once, before the first round, and not round by round: privacy.target_epsilon is all "
    "that it can be"
)
NO_LABELS = (
    "labels are trained on as they are, and nothing is promised of them; privacy=dp_sgd covers "
    "whole examples"
)
REFUSED: Mapping[str, str] = {
    "max_epsilon": ONCE,
    "labels": NO_LABELS,
    "protect_labels": NO_LABELS,
}
NO_NOISE_INSTEAD = "privacy=none"

Range = Sequence[float] | Sequence[Sequence[float]]
"""`[low, high]` of all values, or one such pair for every feature of a row."""


@final
@dataclass(frozen=True)
class InputLaplace:
    """Laplace noise on every value of every example, once.

    Args:
        value_range: that values are cut to, see `Range`; declared, whatever the data are.
        clip_norm_l1: C, in units of the range; None: no further cut.
        noise_scale: b, in units of the range; or `target_epsilon`.
        target_epsilon: of one example, over all rounds at once.
    """

    noised_before_seen: ClassVar[bool] = True
    refused_arguments: ClassVar[Mapping[str, str]] = {
        **REFUSED,
        "clip_norm": "Laplace noise needs an L1 clip; use clip_norm_l1, or privacy=input_gaussian",
    }

    value_range: Range
    clip_norm_l1: float | None
    noise_scale: float | None
    target_epsilon: Target

    def __post_init__(self) -> None:
        _check(self.value_range, self.target_epsilon, noise_scale=self.noise_scale)
        if self.clip_norm_l1 is not None:
            positive(clip_norm_l1=self.clip_norm_l1)

    def refuse(self, parts: Combination) -> None:
        """Goes with everything: what follows is made of perturbed examples."""

    def protect(self, plan: Plan, bare: Protection) -> Protection:
        """The scale for the examples' size, and an account that is full from the start."""
        check_range(self.value_range, plan.example_shape)
        sensitivity = l1_sensitivity(math.prod(plan.example_shape), self.clip_norm_l1)
        target, scale = as_number(self.target_epsilon), self.noise_scale
        if scale is None:
            assert target is not None
            scale = sensitivity / target
        guarantee = Guarantee(sensitivity / scale, 0.0, "closed form", "replace_one", "")
        noise = {"l1_sensitivity": sensitivity, "noise_scale": scale}
        settled = replace(self, noise_scale=scale, target_epsilon=None)
        return replace(bare, account=_account("Laplace", guarantee, noise), mechanism=settled)

    def perturbed(self, part: Split, rng: np.random.Generator) -> Split:
        """A client's examples as it trains on them: float32 in their own unit."""
        assert self.noise_scale is not None
        return _perturbed(
            part, self.value_range, 1, self.clip_norm_l1, rng.laplace, self.noise_scale
        )


@final
@dataclass(frozen=True)
class InputGaussian:
    """Gaussian noise on every value of every example, once.

    Args:
        value_range: that values are cut to, see `Range`; declared, whatever the data are.
        clip_norm: C, in units of the range; None: no further cut.
        noise_std: s, in units of the range; or `target_epsilon`.
        delta: of the guarantee, below one over the number of examples.
        target_epsilon: of one example, over all rounds at once.
    """

    noised_before_seen: ClassVar[bool] = True
    refused_arguments: ClassVar[Mapping[str, str]] = REFUSED

    value_range: Range
    clip_norm: float | None
    noise_std: float | None
    delta: float
    target_epsilon: Target

    def __post_init__(self) -> None:
        _check(self.value_range, self.target_epsilon, noise_std=self.noise_std)
        if self.clip_norm is not None:
            positive(clip_norm=self.clip_norm)

    def refuse(self, parts: Combination) -> None:
        """Goes with everything: what follows is made of perturbed examples."""

    def protect(self, plan: Plan, bare: Protection) -> Protection:
        """The deviation for the examples' size, and an account that is full from the start."""
        check_range(self.value_range, plan.example_shape)
        target = as_number(self.target_epsilon)
        terms = Terms.of(
            sum(plan.sizes), "examples", delta=self.delta, target_epsilon=target, max_epsilon=None
        )
        sensitivity = l2_sensitivity(math.prod(plan.example_shape), self.clip_norm)
        deviation = self.noise_std
        if deviation is None:
            assert target is not None
            deviation = sensitivity * noise_multiplier_for(target, self.delta)
        epsilon = epsilon_of(deviation / sensitivity, self.delta)
        guarantee = Guarantee(epsilon, self.delta, "closed form", "replace_one", "")
        noise = {"l2_sensitivity": sensitivity, "noise_std": deviation}
        settled = replace(self, noise_std=deviation, target_epsilon=None)
        return replace(
            bare,
            account=_account("Gaussian", guarantee, noise),
            mechanism=settled,
            remarks=(terms.remark,) if terms.remark else (),
        )

    def perturbed(self, part: Split, rng: np.random.Generator) -> Split:
        """A client's examples as it trains on them: float32 in their own unit."""
        assert self.noise_std is not None
        return _perturbed(part, self.value_range, 2, self.clip_norm, rng.normal, self.noise_std)


def l1_sensitivity(numbers: int, clip_norm_l1: float | None) -> float:
    """S_1 of examples of so many numbers in [0, 1].

    >>> l1_sensitivity(784, None), l1_sensitivity(784, 100.0)
    (784.0, 200.0)
    """
    return float(numbers) if clip_norm_l1 is None else min(float(numbers), 2 * clip_norm_l1)


def l2_sensitivity(numbers: int, clip_norm: float | None) -> float:
    """S_2 of examples of so many numbers in [0, 1].

    >>> l2_sensitivity(784, None), round(l2_sensitivity(784, 9.0), 4)
    (28.0, 12.7279)
    """
    largest = math.sqrt(numbers)
    return largest if clip_norm is None else min(largest, math.sqrt(2) * clip_norm)


def check_range(value_range: Range, example_shape: Sequence[int]) -> None:
    """Raise InputError for pairs of features other than there are."""
    bounds = np.asarray(value_range, dtype=float)
    if bounds.ndim == 2 and tuple(example_shape) != (len(bounds),):
        raise InputError(
            f"has {len(bounds)} pairs, and an example is {list(example_shape)}; give a pair for "
            "every feature of a row, or one [low, high] for all",
            "value_range",
            f"{len(bounds)} pairs",
        )


def _check(value_range: Range, target_epsilon: Target, **noise: float | None) -> None:
    check_limits(target_epsilon, None)
    refuse_no_noise(target_epsilon, NO_NOISE_INSTEAD)
    check_noise_is_given_once(target_epsilon, **noise)
    positive(**{key: value for key, value in noise.items() if value is not None})
    try:
        bounds = np.asarray(value_range, dtype=float)
    except (TypeError, ValueError):
        bounds = np.empty(0)
    if (
        bounds.ndim not in (1, 2)
        or bounds.shape[-1] != 2
        or not np.isfinite(bounds).all()
        or not (bounds[..., 0] < bounds[..., 1]).all()
    ):
        raise InputError(
            "must be [low, high] with low below high, or such a pair for every feature of a row",
            "value_range",
            value_range,
        )


def _perturbed(
    part: Split,
    value_range: Range,
    order: int,
    clip_norm: float | None,
    draw: Callable[[float, float, tuple[int, ...]], np.ndarray],
    size: float,
) -> Split:
    x = part.as_floats().x.double()
    low, width = _bounds(value_range)
    unit = ((x - low) / width).clamp(0, 1)
    if clip_norm is not None:
        norms = torch.linalg.vector_norm(unit.flatten(1), ord=order, dim=1)
        factors = clip_norm / norms.clamp_min(clip_norm)
        unit = unit * factors.view(-1, *[1] * (x.dim() - 1))
    noise = torch.from_numpy(draw(0.0, size, tuple(x.shape)))
    return part.with_x((low + width * (unit + noise)).float())


def _bounds(value_range: Range) -> tuple[Tensor, Tensor]:
    """(low, high - low), each a number or one a feature."""
    bounds = torch.tensor(np.asarray(value_range, dtype=float))
    return bounds[..., 0], bounds[..., 1] - bounds[..., 0]


def _account(kind: str, guarantee: Guarantee, noise: Mapping[str, float]) -> PrivacyAccount:
    description = Description(
        mechanism=f"local DP: every client adds {kind} noise to its examples, once",
        unit=UNIT,
        noise=noise,
        noise_added_by="each client, to its own examples, before the first round",
        noise_source=SEEDED,
        sampling="nothing to count on: every example is perturbed, once",
        not_covered=(*NOT_THE_VALUES, *NOT_COVERED),
    )
    return PrivacyAccount(_Spent(guarantee), _Nothing(), description, None)


@final
@dataclass(frozen=True)
class _Spent:
    """A ledger in which all is spent before the first round."""

    guarantee: Guarantee

    def init(self) -> State:
        return {}

    def charge(self, state: State, steps: Mapping[int, int]) -> State:
        return state

    def epsilon(self, state: State) -> Guarantee:
        return self.guarantee

    def would_exceed(self, state: State, steps: Mapping[int, int], max_epsilon: float) -> bool:
        return self.guarantee.epsilon > max_epsilon


@final
@dataclass(frozen=True)
class _Nothing:
    """What a round costs when all is spent."""

    def at_most(self, cohort: Sequence[int]) -> Mapping[int, int]:
        return {}

    def of(self, sent: Updates, delivery: Delivery) -> Mapping[int, int]:
        return {}
