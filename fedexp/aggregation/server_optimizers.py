"""What the server does with the aggregated step: plain addition, momentum, or adaptive steps.

The step is a pseudo-gradient with the sign of an update (delta = local - global), so every rule
adds it:

    momentum   m <- beta m + step                              w <- w + lr m
    adaptive   m <- beta1 m + (1 - beta1) step                 w <- w + lr m / (sqrt(v) + tau)
      Adam     v <- beta2 v + (1 - beta2) step^2
      Yogi     v <- v - (1 - beta2) step^2 sign(v - step^2)
      Adagrad  v <- v + step^2

Sources: Hsu, Qi and Brown, "Measuring the Effects of Non-Identical Data Distribution", 2019
(momentum); Reddi et al., "Adaptive Federated Optimization", ICLR 2021, algorithm 2 (the others),
with v = tau^2 before the first round and no bias correction, as printed there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from fedexp.core.checks import InputError, in_range, positive
from fedexp.core.types import State


@final
@dataclass(frozen=True)
class SGD:
    """w <- w + lr * step; with lr = 1 it is FedAvg."""

    is_linear: ClassVar[bool] = True

    lr: float

    def __post_init__(self) -> None:
        positive(lr=self.lr)

    def init(self, params: Tensor) -> State:
        """No state."""
        return {}

    def __call__(self, params: Tensor, step: Tensor, state: State) -> tuple[Tensor, State]:
        """New parameters and the state unchanged."""
        return params.add(step, alpha=self.lr), state


@final
@dataclass(frozen=True)
class Momentum:
    """FedAvgM: heavy-ball momentum on the server."""

    lr: float
    beta: float

    def __post_init__(self) -> None:
        positive(lr=self.lr)
        in_range(0, 1, beta=self.beta)

    def init(self, params: Tensor) -> State:
        """Start with m = 0."""
        return {"m": torch.zeros_like(params)}

    def __call__(self, params: Tensor, step: Tensor, state: State) -> tuple[Tensor, State]:
        """New parameters and the new momentum."""
        m = self.beta * state["m"] + step
        return params.add(m, alpha=self.lr), {"m": m}


@final
@dataclass(frozen=True)
class Adam:
    """FedAdam."""

    lr: float
    beta1: float
    beta2: float
    tau: float

    def __post_init__(self) -> None:
        positive(lr=self.lr, tau=self.tau)
        _check_beta1(self.beta1)
        in_range(0, 1, beta2=self.beta2)

    def init(self, params: Tensor) -> State:
        """Start with m = 0, v = tau^2."""
        return _adaptive_state(params, self.tau)

    def __call__(self, params: Tensor, step: Tensor, state: State) -> tuple[Tensor, State]:
        """New parameters and new moments."""
        return _adaptive_step(
            params,
            step,
            state,
            self.lr,
            self.beta1,
            self.tau,
            lambda v, squared: self.beta2 * v + (1 - self.beta2) * squared,
        )


@final
@dataclass(frozen=True)
class Yogi:
    """FedYogi."""

    lr: float
    beta1: float
    beta2: float
    tau: float

    def __post_init__(self) -> None:
        positive(lr=self.lr, tau=self.tau)
        _check_beta1(self.beta1)
        in_range(0, 1, beta2=self.beta2)

    def init(self, params: Tensor) -> State:
        """Start with m = 0, v = tau^2."""
        return _adaptive_state(params, self.tau)

    def __call__(self, params: Tensor, step: Tensor, state: State) -> tuple[Tensor, State]:
        """New parameters and new moments."""
        return _adaptive_step(
            params,
            step,
            state,
            self.lr,
            self.beta1,
            self.tau,
            lambda v, squared: v - (1 - self.beta2) * squared * torch.sign(v - squared),
        )


@final
@dataclass(frozen=True)
class Adagrad:
    """FedAdagrad; the paper's experiments take beta1 = 0."""

    lr: float
    beta1: float
    tau: float

    def __post_init__(self) -> None:
        positive(lr=self.lr, tau=self.tau)
        _check_beta1(self.beta1)

    def init(self, params: Tensor) -> State:
        """Start with m = 0, v = tau^2."""
        return _adaptive_state(params, self.tau)

    def __call__(self, params: Tensor, step: Tensor, state: State) -> tuple[Tensor, State]:
        """New parameters and new moments."""
        return _adaptive_step(
            params,
            step,
            state,
            self.lr,
            self.beta1,
            self.tau,
            lambda v, squared: v + squared,
        )


def _check_beta1(beta1: float) -> None:
    in_range(0, 1, beta1=beta1)
    if beta1 == 1:
        raise InputError("must be below 1: with it no step would ever count", "beta1", beta1)


def _adaptive_state(params: Tensor, tau: float) -> State:
    return {"m": torch.zeros_like(params), "v": torch.full_like(params, tau**2)}


def _adaptive_step(
    params: Tensor,
    step: Tensor,
    state: State,
    lr: float,
    beta1: float,
    tau: float,
    second_moment: Callable[[Tensor, Tensor], Tensor],
) -> tuple[Tensor, State]:
    m = beta1 * state["m"] + (1 - beta1) * step
    v = second_moment(state["v"], step.square())
    return params + lr * m / (v.sqrt() + tau), {"m": m, "v": v}
