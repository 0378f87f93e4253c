"""How many cores this process may use, which in a container is not how many the machine has.

The affinity is asked, and the CPU quota of the control groups that the process is in and of all
above them (`docker --cpus=2`, a Slurm step, a Kubernetes limit). Source: the kernel's
documentation, cgroup-v2.rst (`cpu.max`) and sched-bwc.rst (`cpu.cfs_quota_us`).
"""

from __future__ import annotations

import math
import multiprocessing
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

GROUPS_OF_THIS_PROCESS = Path("/proc/self/cgroup")
MOUNTED = Path("/sys/fs/cgroup")

_processes = 1  # that share the cores with this one, itself included


def available_cores() -> int:
    """Cores that this process may use: 1 or more; a part of a core counts as one."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, math.ceil(min(cores, *_quotas(), math.inf)) // _processes)


def shared_among(processes: int) -> None:
    """From here on so many processes share the cores: this one may use its part of them."""
    global _processes
    _processes = processes


def cores_to_spare() -> int:
    """Threads that a computation may start: in a process that is itself a worker only its own."""
    return 1 if multiprocessing.parent_process() else _asked_once()


def can_fork() -> bool:
    """Whether a copy of this process is safe to work with: macOS has the call, and breaks."""
    return sys.platform != "darwin" and "fork" in multiprocessing.get_all_start_methods()


@cache
def _asked_once() -> int:  # there may be twenty files to look at, and rules ask every round
    return available_cores()


def _quotas() -> Iterator[float]:
    """The quotas that hold for this process, in cores."""
    for folder in control_groups():
        with suppress(OSError, ValueError, ZeroDivisionError):  # most files are not there
            quota, period = (folder / "cpu.max").read_text().split()
            yield int(quota) / int(period)  # ValueError for "max"
        with suppress(OSError, ValueError, ZeroDivisionError):
            quota, period = ((folder / f"cpu.cfs_{k}_us").read_text() for k in ("quota", "period"))
            if int(quota) > 0:  # -1: none
                yield int(quota) / int(period)


def control_groups() -> Iterator[Path]:
    """Where the process's control groups, and those above them, may be mounted."""
    try:
        lines = GROUPS_OF_THIS_PROCESS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        own = Path(path.lstrip("/"))
        for mount in (MOUNTED, MOUNTED / "unified", MOUNTED / controllers, MOUNTED / "cpu"):
            # In a container the path may be the host's, and the group be mounted at the root.
            yield from (mount / part for part in (own, *own.parents))
