"""Models with habits that show in training only, by `model._target_`."""

import torch
from torch import nn

PREFIX = "tests.support."
D, K = 64, 10


class _Flat(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(D, K)

    def forward(self, x):
        return self.layer(x.flatten(1))


class NeverFilled(_Flat):
    """Starts from no numbers."""

    def __init__(self):
        super().__init__()
        nn.init.constant_(self.layer.weight, torch.nan)


class UnusedHead(_Flat):
    """Has a layer that forward never calls."""

    def __init__(self):
        super().__init__()
        self.leftover = nn.Linear(D, 3)


class Probabilities(_Flat):
    """Ends in the softmax that the loss makes, too."""

    def forward(self, x):
        return super().forward(x).softmax(dim=1)


class AuxiliaryHead(_Flat):
    """Gives two answers while training, as Inception does."""

    def forward(self, x):
        answer = super().forward(x)
        return (answer, answer) if self.training else answer


class Squeezes(_Flat):
    """Loses the axis of a batch of one."""

    def forward(self, x):
        return super().forward(x).unsqueeze(1).squeeze()


class Normalises(nn.Sequential):
    """Batch normalisation, which has no deviation of one example."""

    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(D, 16), nn.BatchNorm1d(16), nn.Linear(16, K))


class FixedBatch(_Flat):
    """Knows its batch size by heart."""

    def forward(self, x):
        answer = super().forward(x)
        return answer.view(25, K) if self.training else answer


class Drops(nn.Sequential):
    """Draws in training, and counts in a plain attribute."""

    def __init__(self):
        super().__init__(nn.Flatten(), nn.Dropout(0.5), nn.Linear(D, K))
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x)


class Detached(_Flat):
    """Nothing can be learnt."""

    def forward(self, x):
        return super().forward(x).detach() + torch.zeros(1)
