"""Norm bounding: clip every row to a bound, then average; noise on the mean if wanted.

    step = sum_k w_k min(1, M / ||delta_k||) delta_k + N(0, sigma^2 I)

M is a fixed bound, or the median norm of the round. With sigma above 0 this is the paper's "weak
differential privacy": far too little noise for a guarantee, enough to blur a backdoor.

Source: Sun, Kairouz, Suresh and McMahan, "Can You Really Backdoor Federated Learning?", 2019
(arXiv:1911.07963), the defences "norm thresholding" and "weak differential privacy"; the median
norm as the bound is ours. No breakdown point as a rule that selects has one: attackers with a
share w of the weight always move the step, and never by more than 2 w M.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

import numpy as np
import torch
from torch import Tensor

from fedexp.core.checks import non_negative, one_of, positive
from fedexp.core.norms import clip_factors, median, row_norms, weighted_sum
from fedexp.core.stateless import Stateless
from fedexp.core.types import State, Updates


@final
@dataclass(frozen=True)
class NormBounding(Stateless):
    """Weighted mean of the clipped rows: `[n, d]` to `[d]`.

    Args:
        max_norm: M, the bound on a row's Euclidean norm; None takes the round's median norm.
        noise_std: sigma, standard deviation of the noise on each coordinate of the step, in the
            units of an update; 0 adds none.
        weighting: "examples" weights a client by the number of its examples; "uniform" does not.

    >>> rows = Updates(torch.tensor([[1.0], [9.0], [2.0]]), (0, 1, 2), torch.ones(3))
    >>> NormBounding(None, 0, "uniform")(rows, {}, np.random.default_rng(0))[0]
    tensor([1.6667])
    """

    max_norm: float | None
    noise_std: float
    weighting: Literal["examples", "uniform"]

    def __post_init__(self) -> None:
        if self.max_norm is not None:
            positive(max_norm=self.max_norm)
        non_negative(noise_std=self.noise_std)
        one_of(("examples", "uniform"), weighting=self.weighting)

    def __call__(
        self, updates: Updates, state: State, rng: np.random.Generator
    ) -> tuple[Tensor, State]:
        """The step `[d]`."""
        matrix = updates.matrix
        norms = row_norms(matrix)
        bound = median(norms) if self.max_norm is None else self.max_norm
        weights = updates.num_examples.to(norms)
        if self.weighting == "uniform":
            weights = torch.ones_like(norms)
        share = weights / weights.sum() * clip_factors(norms, bound)
        step = weighted_sum(share, matrix)
        if self.noise_std > 0:
            noise = rng.standard_normal(len(step), dtype=np.float32)
            step += self.noise_std * torch.from_numpy(noise).to(step.device)
        return step, state
