"""Peak memory of two rounds with 100 clients a round, each measured in a process of its own.

python -m benchmarks.memory N_CLIENTS EXAMPLES_EACH prints megabytes.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from benchmarks.engine import OurRound
from benchmarks.workloads import MLP_FLOPS, Case, data_of, two_nn
from fedexp.aggregation.mean import Mean
from fedexp.backends.in_process import InProcess
from fedexp.core.workload import Workload
from fedexp.tasks.multiclass import Multiclass


def memory_of(n_clients: int, examples_each: int) -> float:
    """Megabytes."""
    command = [sys.executable, "-m", "benchmarks.memory", str(n_clients), str(examples_each)]
    scripts = Path(__file__).parents[1]
    answer = subprocess.run(command, cwd=scripts, capture_output=True, text=True, check=True)
    return float(answer.stdout)


def peak_mb() -> float:
    """The most that this process has held. Not `ru_maxrss`, which begins with its parent's."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1.024e-3
    raise OSError("the system does not say how much memory a process has held")


def peak_of_this_process(n_clients: int, examples_each: int) -> float:
    """Train two rounds of W1's model here, and ask the system for the peak in megabytes."""
    torch.set_num_threads(1)
    model, cohort = two_nn(), np.arange(100)
    sizes = np.full(n_clients, examples_each)
    case = Case("memory", model, sizes, cohort, 10, Mean("examples"), MLP_FLOPS)
    data, shards = data_of(case)
    work = Workload(model, data, shards, {}, len(cohort), torch.device("cpu"), Multiclass())
    ours = OurRound(case, InProcess(work))
    ours.round()
    ours.round()
    return peak_mb()


if __name__ == "__main__":
    print(peak_of_this_process(int(sys.argv[1]), int(sys.argv[2])))
