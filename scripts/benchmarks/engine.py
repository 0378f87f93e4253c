"""Rounds of a workload: ours with one worker and with several, beside the loops people write."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import numpy as np
import torch

from benchmarks.baselines import LR, OpacusLoop, PlainLoop
from benchmarks.timing import Contestant, interleaved
from benchmarks.workloads import Case, data_of
from fedexp.backends.in_process import InProcess
from fedexp.backends.process_pool import ProcessPool
from fedexp.core.flat import vector_of
from fedexp.core.protocols import Backend, Trainer
from fedexp.core.rng import seed_for
from fedexp.core.types import ClientTask
from fedexp.core.workload import Workload
from fedexp.privacy.dp_sgd import PrivateTraining
from fedexp.tasks.multiclass import Multiclass
from fedexp.training.schedules import Constant
from fedexp.training.sgd import LocalSGD


class OurRound:
    """A round through a backend and a rule."""

    def __init__(self, case: Case, backend: Backend) -> None:
        self.case, self.backend = case, backend
        self.params = vector_of(case.model)
        sgd = LocalSGD(
            lr=LR,
            batch_size=case.batch_size,
            epochs=1,
            steps=None,
            momentum=0.0,
            weight_decay=0.0,
            proximal=0.0,
            schedule=Constant(),
        )
        self.trainer: Trainer = PrivateTraining(sgd, case.private) if case.private else sgd
        self.done = 0

    def round(self) -> None:
        """One round."""
        tasks = [
            ClientTask(c, self.params, self.done, seed_for(0, "client", self.done, c))
            for c in self.case.cohort.tolist()
        ]
        updates = self.backend.train(self.trainer, tasks)
        step, _ = self.case.rule(updates, {}, np.random.default_rng(0))  # none of these draws
        self.params = self.params + step
        self.done += 1


def workload_rows(
    case: Case, runs: int, workers: int, peak_gflops: float
) -> list[dict[str, object]]:
    """Every contestant's seconds, and how many times faster it is than each of the loops."""
    data, shards = data_of(case)
    loops: dict[str, Callable[[], None]]
    if case.private is None:
        loops = {"plain PyTorch loop": PlainLoop(case, data, shards).round}
    else:
        modes = ("hooks", "ghost")
        loops = {f"Opacus loop, {m}": OpacusLoop(case, data, shards, m).round for m in modes}
    work = Workload(
        case.model, data, shards, {}, len(case.cohort), torch.device("cpu"), Multiclass()
    )
    pools: dict[int, Backend] = {1: InProcess(work), workers: ProcessPool(work, workers)}
    # A baseline may use every core that the pool uses, in the way that torch offers: threads.
    contestants = {name: Contestant(run, workers) for name, run in loops.items()}
    for n, pool in pools.items():
        contestants[f"fedexp, {n} process(es)"] = Contestant(OurRound(case, pool).round, 1)
    try:
        timed = interleaved(runs, contestants)
    finally:
        for pool in pools.values():
            pool.close()
    examples = int(case.sizes[case.cohort].sum())
    first, *others = loops
    rows = []
    for who, timing in timed.items():
        ratios = timing.times_faster_than(timed[first])
        cores = 1 if who == "fedexp, 1 process(es)" else workers
        rows.append(
            {
                "case": case.name,
                "who": who,
                **timing.row(),
                "ratio": statistics.median(ratios),
                "ratio_min": min(ratios),
                "ratio_max": max(ratios),
                **{
                    f"ratio to {other}": statistics.median(timing.times_faster_than(timed[other]))
                    for other in others
                },
                "examples_per_second": examples / timing.median,
                "share_of_peak": examples
                * case.flops_per_example
                / timing.median
                / (peak_gflops * 1e9 * cores),
            }
        )
    return rows
