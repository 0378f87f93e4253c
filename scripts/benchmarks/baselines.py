"""The loops that people write, with PyTorch alone and with Opacus."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.workloads import Case
from fedexp.aggregation.median import Median
from fedexp.core.examples import Split

LR = 0.1


class PlainLoop:
    """deepcopy, DataLoader, optim.SGD, state dicts averaged."""

    def __init__(self, case: Case, data: Split, shards: Sequence[np.ndarray]) -> None:
        self.case = case
        self.model = copy.deepcopy(case.model)
        self.sets = {
            c: TensorDataset(
                data.x[torch.from_numpy(shards[c])], data.y[torch.from_numpy(shards[c])]
            )
            for c in case.cohort.tolist()
        }

    def round(self) -> None:
        """One round of FedAvg, or of the coordinate-wise median over state dicts."""
        states = [self.train(own) for own in self.sets.values()]
        sizes = torch.tensor([len(own) for own in self.sets.values()])
        shares = sizes / sizes.sum()
        combined = {}
        for key in states[0]:
            stacked = torch.stack([s[key] for s in states])
            if isinstance(self.case.rule, Median):
                combined[key] = stacked.median(dim=0).values
            else:
                combined[key] = (stacked * shares.view(-1, *[1] * (stacked.dim() - 1))).sum(dim=0)
        self.model.load_state_dict(combined)

    def train(self, own: TensorDataset) -> dict[str, Tensor]:
        """One client's round, from the shared model to its state dict."""
        local = copy.deepcopy(self.model)
        optimizer = torch.optim.SGD(local.parameters(), lr=LR)
        local.train()
        for x, y in DataLoader(own, batch_size=self.case.batch_size, shuffle=True):
            optimizer.zero_grad()
            F.cross_entropy(local(x), y).backward()
            optimizer.step()
        return local.state_dict()


class OpacusLoop(PlainLoop):
    """The same with `PrivacyEngine.make_private` in every client, as Opacus' tutorials have it."""

    def __init__(
        self, case: Case, data: Split, shards: Sequence[np.ndarray], grad_sample_mode: str
    ) -> None:
        super().__init__(case, data, shards)
        self.mode = grad_sample_mode

    def train(self, own: TensorDataset) -> dict[str, Tensor]:
        """One client's round of DP-SGD."""
        from opacus import PrivacyEngine

        assert self.case.private is not None
        local, criterion = copy.deepcopy(self.model), nn.CrossEntropyLoss()
        parts: dict[str, Any] = {
            "module": local,
            "optimizer": torch.optim.SGD(local.parameters(), lr=LR),
            "data_loader": DataLoader(own, batch_size=self.case.batch_size),
            "noise_multiplier": self.case.private.noise_multiplier,
            "max_grad_norm": self.case.private.clip_norm,
            "grad_sample_mode": self.mode,
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the noise's seed is no secret
            if self.mode == "ghost":
                private, optimizer, criterion, loader = PrivacyEngine().make_private(
                    **parts, criterion=criterion
                )
            else:
                private, optimizer, loader = PrivacyEngine().make_private(**parts)
            private.train()
            for x, y in loader:
                optimizer.zero_grad()
                criterion(private(x), y).backward()
                optimizer.step()
        trained: nn.Module = private.to_standard_module()
        return trained.state_dict()
