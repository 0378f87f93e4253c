"""An autoencoder that was taught honest updates cannot reproduce the others.

    score = || x - D(E(x)) ||^2        x: features in standard deviations of the honest ones

E: p -> hidden -> bottleneck, D: bottleneck -> hidden -> p, tanh between. It is trained on honest
rows only, with Adam on the whole batch. Tanh saturates, so what lies outside the honest range is
not reproduced even along the directions that pass the bottleneck.

Source: Li, Cheng, Wang, Liu and Chen, "Learning to Detect Malicious Clients for Robust Federated
Learning", arXiv:2002.00211, 2020, section 3 (a variational autoencoder on surrogate vectors; the
plain one is Hinton and Salakhutdinov, Science 2006). What is reproduced here is the update
as it lies to its round and to the past, see `fedexp.detection.features`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from fedexp.core.checks import at_least, positive
from fedexp.core.rng import seeded
from fedexp.core.types import State
from fedexp.detection.features import standardisation


@final
@dataclass(frozen=True)
class Autoencoder:
    """Reconstruction error of a small autoencoder.

    Args:
        sketch_size: numbers that an update is sketched to before it is compared; None for none.
        hidden: units of the hidden layers.
        bottleneck: units in the middle.
        epochs: Adam steps, each on all rows.
        lr: Adam's learning rate.
    """

    sketch_size: int | None
    hidden: int
    bottleneck: int
    epochs: int
    lr: float

    def __post_init__(self) -> None:
        at_least(1, hidden=self.hidden, bottleneck=self.bottleneck, epochs=self.epochs)
        if self.sketch_size is not None:
            at_least(1, sketch_size=self.sketch_size)
        positive(lr=self.lr)

    def fit(self, features: Tensor, seed: int) -> State:
        """Weights, mean and deviation, learned from honest features `[m, p]`."""
        mean, deviation = standardisation(features)
        x = (features - mean) / deviation
        with seeded(seed, torch.device("cpu")):
            net = self._net(x.shape[1])
        optimizer = torch.optim.Adam(net.parameters(), lr=self.lr, weight_decay=1e-4)
        with torch.enable_grad():
            for _ in range(self.epochs):
                optimizer.zero_grad()
                (net(x) - x).square().sum(dim=1).mean().backward()
                optimizer.step()
        weights = {name: weight.detach().clone() for name, weight in net.state_dict().items()}
        return {"mean": mean, "deviation": deviation, **weights}

    def score(self, features: Tensor, fitted: State) -> Tensor:
        """Squared reconstruction errors of the rows of `features` `[n, p]`: `[n]` float64."""
        x = (features - fitted["mean"]) / fitted["deviation"]
        net = self._net(x.shape[1])
        net.load_state_dict({name: fitted[name] for name in net.state_dict()})
        with torch.no_grad():
            error: Tensor = net(x) - x
        return error.double().square().sum(dim=1)

    def shapes(self, p: int) -> Mapping[str, tuple[int, ...]]:
        """Names and shapes of what `fit` gives for `p` features."""
        with torch.device("meta"):
            weights = {name: tuple(w.shape) for name, w in self._net(p).state_dict().items()}
        return {"mean": (p,), "deviation": (p,), **weights}

    def _net(self, p: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Linear(p, self.hidden),
            nn.Tanh(),
            nn.Linear(self.hidden, self.bottleneck),
            nn.Tanh(),
            nn.Linear(self.bottleneck, self.hidden),
            nn.Tanh(),
            nn.Linear(self.hidden, p),
        )
