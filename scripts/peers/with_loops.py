"""A workload by the loops that people write: PyTorch alone, or Opacus with hooks or ghost clipping.

They are the benchmark's (`benchmarks/baselines.py`), on as many threads as there are cores.
"""

from __future__ import annotations

import numpy as np
import torch
from benchmarks.baselines import OpacusLoop, PlainLoop
from benchmarks.workloads import Case

from fedexp.aggregation.mean import Mean
from fedexp.aggregation.median import Median
from fedexp.core.examples import Split
from fedexp.privacy.private_steps import PrivateSteps
from peers.shared import Rounds, Workload, arguments, finish
from peers.torch_model import accuracy_of, start_model


def loop_of(workload: Workload, kind: str) -> PlainLoop:
    """The loop on the workload's arrays; as many clients as take part in a round."""
    x, y = (torch.from_numpy(workload.array(name).copy()) for name in ("x", "y"))
    shards = [np.arange(rows.start, rows.stop) for rows in workload.shards()]
    case = Case(
        name=workload.name,
        model=start_model(workload),
        sizes=np.array([len(shard) for shard in shards]),
        cohort=np.random.default_rng(0).choice(len(shards), workload.per_round, replace=False),
        batch_size=workload.batch_size,
        rule=Median(0) if workload.rule == "median" else Mean("examples"),
        flops_per_example=0.0,
        private=PrivateSteps(1.0, 1.0, "auto", "task") if workload.private else None,
    )
    data = Split(x, y)
    return (
        PlainLoop(case, data, shards) if kind == "plain" else OpacusLoop(case, data, shards, kind)
    )


def main() -> None:
    given = arguments(kind=("plain", "ghost", "hooks"))
    workload = Workload.read(given.workload)
    loop, rounds = loop_of(workload, given.kind), Rounds()
    rounds.begin()
    for _ in range(given.rounds):
        loop.round()
        rounds.done()
    packages = ("torch",) if given.kind == "plain" else ("opacus", "torch")
    finish(accuracy_of(loop.model, workload), *packages)


if __name__ == "__main__":
    main()
