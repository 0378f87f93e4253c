"""The reference workloads, after the FedAvg paper's.

W1 the 2NN, 1000 clients x 60, 100 a round; W2 the paper's CNN, 100 clients x 600, 10 a round; W3
20 clients x 600 with a small CNN and the coordinate-wise median; W4 DP-SGD in 10 clients x 600, the
2NN and the CNN; W5 W1's model with lognormal client sizes from 10 to 600. Synthetic, learnable,
MNIST-shaped data.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from fedexp.aggregation.mean import Mean
from fedexp.aggregation.median import Median
from fedexp.core.examples import Split
from fedexp.core.protocols import Aggregator
from fedexp.models import cnn, mlp, small_cnn
from fedexp.privacy.private_steps import PrivateSteps

SHAPE, CLASSES = (1, 28, 28), 10
WORKLOADS = ("W1", "W2", "W3", "W4", "W5")

# A forward pass: multiply and add counted as two. A backward pass costs two more.
MLP_FLOPS = 6 * 198_800
CNN_FLOPS = 6 * (784 * 25 * 32 + 196 * 25 * 32 * 64 + 3136 * 512 + 5120)
SMALL_CNN_FLOPS = 6 * (784 * 9 * 16 + 196 * 9 * 16 * 40 + 1960 * 10)


@dataclass(frozen=True)
class Case:
    """A workload: what one round is."""

    name: str
    model: nn.Module
    sizes: np.ndarray  # examples of each client
    cohort: np.ndarray
    batch_size: int
    rule: Aggregator
    flops_per_example: float
    private: PrivateSteps | None = None  # DP-SGD in the clients

    @property
    def key(self) -> str:
        """W1 to W5."""
        return self.name.split()[0]


def two_nn() -> nn.Module:
    """The 2NN with the same weights every time."""
    torch.manual_seed(0)
    return mlp(SHAPE, CLASSES, hidden=(200, 200))


def cases(quick: bool) -> list[Case]:
    """The workloads, or smaller ones that take a tenth of the time."""
    rng = np.random.default_rng(0)
    few = 4 if quick else 1
    mean, median = Mean("examples"), Median(5)
    small_mlp = two_nn()
    big, small = cnn(SHAPE, CLASSES), small_cnn(SHAPE, CLASSES)
    lognormal = np.clip(np.exp(rng.normal(np.log(60), 1.0, 1000)), 10, 600).astype(int)
    cohort = rng.choice(1000, 100 // few, replace=False)
    ten_of_hundred = rng.choice(100, 10, replace=False)[: 10 // few]
    twenty = np.arange(20 if few == 1 else 12)
    ten = np.arange(10 // few)
    dp = PrivateSteps(clip_norm=1.0, noise_multiplier=1.0, clipping="auto", noise_seed="task")
    sixty, many, ten_clients = np.full(1000, 60), np.full(100, 600), np.full(10, 600)
    return [
        Case("W1 2NN, 100 x 60", small_mlp, sixty, cohort, 10, mean, MLP_FLOPS),
        Case("W2 CNN, 10 x 600", big, many, ten_of_hundred, 10, mean, CNN_FLOPS),
        Case(
            "W3 small CNN, 20 x 600, median",
            small,
            np.full(20, 600),
            twenty,
            32,
            median,
            SMALL_CNN_FLOPS,
        ),
        Case("W4 DP-SGD, 2NN, 10 x 600", small_mlp, ten_clients, ten, 32, mean, MLP_FLOPS, dp),
        Case("W4 DP-SGD, CNN, 10 x 600", big, ten_clients, ten, 32, mean, CNN_FLOPS, dp),
        Case("W5 2NN, lognormal sizes", small_mlp, lognormal, cohort, 10, mean, MLP_FLOPS),
    ]


def data_of(case: Case) -> tuple[Split, tuple[np.ndarray, ...]]:
    """Learnable images of ten classes, and every client's rows."""
    n = int(case.sizes.sum())
    g = torch.Generator().manual_seed(0)
    y = torch.randint(0, CLASSES, (n,), generator=g)
    centres = torch.randn(CLASSES, *SHAPE, generator=g)
    x = centres[y] + torch.randn(n, *SHAPE, generator=g)
    edges = np.concatenate([[0], np.cumsum(case.sizes)])
    return Split(x, y), tuple(np.arange(a, b) for a, b in itertools.pairwise(edges))
