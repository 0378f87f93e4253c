"""The first model of a workload for those who train with torch."""

from __future__ import annotations

import torch
from torch import nn

from fedexp.models import cnn, mlp
from peers.shared import Workload

SHAPE, CLASSES = (1, 28, 28), 10


def start_model(workload: Workload) -> nn.Module:
    """The 2NN or the CNN with the workload's weights."""
    models = {"mlp": lambda: mlp(SHAPE, CLASSES, (200, 200)), "cnn": lambda: cnn(SHAPE, CLASSES)}
    model = models[workload.model]()
    model.load_state_dict({k: torch.from_numpy(v) for k, v in workload.start().items()})
    return model


@torch.no_grad()
def accuracy_of(model: nn.Module, workload: Workload) -> float:
    """On the test rows."""
    x, y = (torch.from_numpy(workload.array(name).copy()) for name in ("x_test", "y_test"))
    return float((model(x).argmax(dim=1) == y).float().mean())
