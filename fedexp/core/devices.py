"""From the host to a device, and how a GPU is to count."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def repeatable() -> None:
    """Have a GPU's convolutions count in float32 and the same way each time, in this process.

    Left to itself cuDNN rounds their factors to 10 bits (TF32), and takes kernels whose sums come
    out differently from run to run. Without a GPU it has no effect.
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def on_device(array: np.ndarray, device: torch.device) -> Tensor:
    """The numbers on a device, without waiting for what it is at."""
    tensor = torch.from_numpy(array)
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
