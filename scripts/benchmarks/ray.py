"""A Ray cluster of this machine beside the process pool, and cohorts whose rows would not fit.

`overhead_rows`: rounds of W2 with as many workers each; the ratio is what Ray costs. `many_rows`:
10,000 clients of 6 examples in one round of W1's model, whose rows are 8 GB, by the means of 64;
what the process at the centre holds at most is measured in a process of its own:
`python -m benchmarks.ray CLIENTS WORKERS` prints seconds a round and megabytes.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.engine import OurRound
from benchmarks.memory import peak_mb
from benchmarks.timing import Contestant, interleaved
from benchmarks.workloads import MLP_FLOPS, Case, cases, data_of, two_nn
from fedexp.aggregation.mean import Mean
from fedexp.backends.process_pool import ProcessPool
from fedexp.backends.ray_cluster import RayCluster
from fedexp.channel.block_means import BlockMeans
from fedexp.core.flat import vector_of
from fedexp.core.rng import generator, seed_for
from fedexp.core.types import ClientTask
from fedexp.core.workload import Workload
from fedexp.tasks.multiclass import Multiclass


def overhead_rows(runs: int, quick: bool, workers: int) -> list[dict[str, object]]:
    """Seconds a round of the pool and of Ray, and Ray's over the pool's in the same turn."""
    case = next(case for case in cases(quick) if case.key == "W2")
    work = _workload(case)
    pool, ray = ProcessPool(work, workers), RayCluster(work, None, workers, None)
    contestants = {
        "process pool": Contestant(OurRound(case, pool).round, 1),
        "Ray": Contestant(OurRound(case, ray).round, 1),
    }
    try:
        timed = interleaved(runs, contestants)
    finally:
        pool.close()
        ray.close()
    ratios = timed["process pool"].times_faster_than(timed["Ray"])
    return [
        {
            "case": case.name,
            "who": who,
            **timing.row(),
            "Ray over pool": statistics.median(ratios),
            "from": min(ratios),
            "to": max(ratios),
        }
        for who, timing in timed.items()
    ]


def many_rows(quick: bool, workers: int) -> list[dict[str, object]]:
    """A round of very many clients by sums that the workers make."""
    found = []
    for clients in (100, 1000) if quick else (1000, 10_000):
        command = [sys.executable, "-m", "benchmarks.ray", str(clients), str(workers)]
        scripts = Path(__file__).parents[1]
        answer = subprocess.run(command, cwd=scripts, capture_output=True, text=True, check=True)
        seconds, before, peak = map(float, answer.stdout.split()[-3:])
        rows = clients * len(vector_of(two_nn())) * 4 / 1e6
        found.append(
            {
                "clients a round": clients,
                "seconds a round": seconds,
                "MB at the centre before": before,
                "MB at most": peak,
                "MB of rows": rows,
            }
        )
    return found


def round_of_many(clients: int, workers: int) -> tuple[float, float, float]:
    """Seconds of the second round, and this process's peak memory before the first and at last."""
    torch.set_num_threads(1)
    model, sizes = two_nn(), np.full(clients, 6)
    case = Case("many", model, sizes, np.arange(clients), 10, Mean("examples"), MLP_FLOPS)
    channel = BlockMeans(size=64, weighting="examples")
    ours = OurRound(case, RayCluster(_workload(case), None, workers, None))
    try:
        ours.backend.train(ours.trainer, [ClientTask(0, ours.params, 0, 0)])  # it starts
        before = peak_mb()
        for number in range(2):
            started = time.perf_counter()
            tasks = [
                ClientTask(c, ours.params, number, seed_for(0, "client", number, c))
                for c in range(clients)
            ]
            sent = ours.backend.train_merged(ours.trainer, tasks, channel)
            received = channel.transmit(sent, generator(0, "channel")).received
            step, _ = case.rule(received, {}, generator(0, "rule"))
            ours.params = ours.params + step
            seconds = time.perf_counter() - started
    finally:
        ours.backend.close()
    return seconds, before, peak_mb()


def _workload(case: Case) -> Workload:
    data, shards = data_of(case)
    cpu = torch.device("cpu")
    return Workload(case.model, data, shards, {}, len(case.cohort), cpu, Multiclass())


if __name__ == "__main__":
    print(*round_of_many(int(sys.argv[1]), int(sys.argv[2])))
