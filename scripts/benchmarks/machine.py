"""What the figures were measured on, and the most that it can do."""

from __future__ import annotations

import platform
import time
from pathlib import Path

import torch

from fedexp.core.cores import available_cores


def machine() -> dict[str, object]:
    """Processor and versions."""
    name = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), name)
    return {
        "processor": name,
        "cores": available_cores(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def arithmetic_peak() -> float:
    """GFLOP/s of a large float32 matrix product on one thread, the best of several."""
    torch.set_num_threads(1)
    a = torch.randn(1024, 1024)
    best = 0.0
    for _ in range(10):
        started = time.perf_counter()
        a @ a
        best = max(best, 2 * 1024**3 / (time.perf_counter() - started) / 1e9)
    return best
