"""Mean and deviation of stored examples by channel or feature, without a float copy of them.

    mean = S1 / N,    deviation^2 = (N S2 - S1^2) / (N (N - 1)),    S1 = sum x,  S2 = sum x^2

Of bytes they are exact: S1 and S2 are whole numbers, counted by histogram. Of float32, sums are
taken in float64, the squares about the mean (a second pass), a block of examples at a time.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fedexp.core.mapping import let_go

AT_ONCE = 4096  # examples in memory as anything wider than they are stored


def moments(x: Tensor, divisor: float) -> tuple[Tensor, Tensor]:
    """Mean and deviation (over N - 1) of examples over their divisor.

    Args:
        x: `[n, channels, ...]` or `[n, features]`, uint8 or float32.
        divisor: of bytes.

    Returns:
        Two tensors `[channels]` or `[features]` float64. The deviation is exactly 0 where nothing
        ever changes.

    >>> mean, deviation = moments(torch.tensor([[0, 7], [10, 7]], dtype=torch.uint8), 10)
    >>> mean.tolist(), (deviation**2).round(decimals=12).tolist()
    ([0.5, 0.7], [0.5, 0.0])
    """
    if x.dtype == torch.uint8:
        return _of_bytes(x, divisor)
    return _of_floats(x)


def _of_bytes(x: Tensor, divisor: float) -> tuple[Tensor, Tensor]:
    histograms = torch.zeros(x.shape[1], 256, dtype=torch.int64)
    for block in x.split(AT_ONCE):
        for c in range(x.shape[1]):
            histograms[c] += torch.bincount(block[:, c].flatten(), minlength=256).cpu()
        let_go(block)
    means, deviations = [], []
    for counts in histograms.tolist():  # Python's whole numbers do not overflow
        n = sum(counts)
        total = sum(value * count for value, count in enumerate(counts))
        squares = sum(value**2 * count for value, count in enumerate(counts))
        means.append(total / n / divisor)
        spread = (n * squares - total**2) / (n * max(n - 1, 1))
        deviations.append(math.sqrt(spread) / divisor)
    return _float64(means), _float64(deviations)


def _of_floats(x: Tensor) -> tuple[Tensor, Tensor]:
    n = x.numel() // x.shape[1]
    blocks = x.transpose(0, 1).split(AT_ONCE, dim=1)  # views [channels, n, ...]
    mean = sum(block.flatten(1).double().sum(dim=1) for block in blocks) / n
    assert isinstance(mean, Tensor)
    spread = torch.zeros_like(mean)
    changes = torch.zeros(len(mean), dtype=torch.bool, device=x.device)
    for block in blocks:
        values = block.flatten(1)
        spread += (values.double() - mean[:, None]).square().sum(dim=1)
        changes |= (values != x[:1].transpose(0, 1).flatten(1)[:, :1]).any(dim=1)
    return mean, torch.where(changes, (spread / max(n - 1, 1)).sqrt(), 0.0)


def _float64(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)
