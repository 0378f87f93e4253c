"""How much memory a run has taken so far: two lines of summary.json."""

from __future__ import annotations

import multiprocessing
import sys
from pathlib import Path


def memory() -> dict[str, float | None]:
    """Peaks in MB of this process, and of the largest worker alive (None: none, or no /proc)."""
    return {
        "peak_memory_mb": _own_peak() / 1e6,
        "peak_memory_of_a_worker_mb": max(_of_workers(), default=None),
    }


def _own_peak() -> float:
    """Bytes."""
    if sys.platform == "win32":
        import psutil

        return float(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak) * (1 if sys.platform == "darwin" else 1e3)  # kilobytes elsewhere


def _of_workers() -> list[float]:
    peaks: list[float] = []
    for worker in multiprocessing.active_children():
        try:
            status = Path(f"/proc/{worker.pid}/status").read_text()
        except OSError:
            continue
        peaks += [int(line.split()[1]) / 1e3 for line in status.splitlines() if "VmHWM" in line]
    return peaks
