"""What a GPU is worth here: clients in blocks beside one after the other, and the server's rules.

    python scripts/gpu.py                        on a GPU: all of it, in under eight minutes
    python scripts/gpu.py --device cpu --quick   on the CPU and smaller, to see that it runs

W1 to W5 (`benchmarks/workloads.py`), rules on [50, 1.66M] beside the CPU's, and LiRA and inverted
gradients as `fedexp run` does them. A table on stdout, JSON beside it. How far both ways are apart
stands beside their times. What does not fit into the time is left out, and said.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from benchmark import table
from benchmarks.engine import OurRound
from benchmarks.machine import machine
from benchmarks.rules import contests
from benchmarks.workloads import Case, cases, data_of

from fedexp.aggregation.mean import Mean
from fedexp.backends.blocks import Blocks
from fedexp.backends.in_process import InProcess
from fedexp.core.devices import repeatable
from fedexp.core.rng import seed_for
from fedexp.core.types import ClientTask
from fedexp.core.workload import Workload
from fedexp.tasks.multiclass import Multiclass

MINUTES = 7.5
STEPS_COMPARED, LR_COMPARED = 10, 0.01

MEAN = Mean("examples")

Row = dict[str, object]


class Clock:
    """The time that is left, and how long something takes on a device."""

    def __init__(self, device: torch.device, minutes: float) -> None:
        self.device, self.end = device, time.monotonic() + 60 * minutes

    @property
    def left(self) -> float:
        """Seconds."""
        return self.end - time.monotonic()

    def seconds(self, run: Callable[[], object]) -> float:
        """Of one call, until the device is done with it."""
        self._wait()
        started = time.perf_counter()
        run()
        self._wait()
        return time.perf_counter() - started

    def turns(self, runs: int, *contestants: Callable[[], object]) -> list[list[float]]:
        """Seconds of each, in turn (A B A B ...), after a call of each to warm up."""
        for contestant in contestants:
            contestant()
        turns = [[self.seconds(contestant) for contestant in contestants] for _ in range(runs)]
        return [list(of_one) for of_one in zip(*turns, strict=True)]

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def chosen(quick: bool) -> list[Case]:
    """The workloads; for a look, three clients of at most 40 examples in each."""
    if not quick:
        return cases(quick=False)
    return [
        replace(case, sizes=np.minimum(case.sizes, 40), cohort=case.cohort[:3], rule=MEAN)
        for case in cases(quick=True)
    ]


def workload_row(case: Case, clock: Clock, runs: int) -> Row:
    """A round of a workload, in blocks and one client after the other on the same device."""
    data, shards = data_of(case)
    work = Workload(case.model, data, shards, {}, len(case.cohort), clock.device, Multiclass())
    blocks, one = OurRound(case, Blocks(work, None)), OurRound(case, InProcess(work))
    for contestant in (blocks, one):
        contestant.params = contestant.params.to(clock.device)
    difference = usual_difference(case, work)
    first, second = clock.turns(runs, blocks.round, one.round)
    examples = int(case.sizes[case.cohort].sum())
    return {
        "case": case.name,
        "blocks": statistics.median(first),
        "one by one": statistics.median(second),
        "times faster": statistics.median(b / a for a, b in zip(first, second, strict=True)),
        "examples a second": examples / statistics.median(first),
        "usual difference": difference,
    }


def usual_difference(case: Case, work: Workload) -> float:
    """Between both ways after ten small steps of ten clients, the median, as a share of the update.

    Without noise. A median, because two pixels that are almost equal may change places in a
    maximum, and what that client does from there on is another thing.
    """
    few = OurRound(case, InProcess(work))
    trainer = few.trainer
    if case.private is not None:
        trainer = replace(trainer, steps=replace(trainer.steps, noise_multiplier=0.0))
        inner = replace(trainer.trainer, epochs=None, steps=STEPS_COMPARED, lr=LR_COMPARED)
        trainer = replace(trainer, trainer=inner)
    else:
        trainer = replace(trainer, epochs=None, steps=STEPS_COMPARED, lr=LR_COMPARED)
    params = few.params.to(work.device)
    tasks = [
        ClientTask(c, params, 0, seed_for(0, "client", 0, c)) for c in case.cohort[:10].tolist()
    ]
    expected = few.backend.train(trainer, tasks).matrix.clone()
    found = Blocks(work, None).train(trainer, tasks).matrix
    return float(((found - expected).norm(dim=1) / expected.norm(dim=1)).median())


def rule_row(name: str, clock: Clock, runs: int, d: int) -> Row:
    """A rule on the device, beside the same on the CPU."""
    rows = torch.randn(50, d, generator=torch.Generator().manual_seed(0))
    there = rows.to(clock.device)
    ours = contests(50)[name].ours
    answer, expected = ours(there).cpu(), ours(rows)
    on_device, on_cpu = clock.turns(runs, lambda: ours(there), lambda: ours(rows))
    return {
        "rule": f"{name} [50, {d}]",
        "device": statistics.median(on_device),
        "CPU, its cores": statistics.median(on_cpu),
        "times faster": statistics.median(b / a for a, b in zip(on_device, on_cpu, strict=True)),
        "largest difference": float((answer - expected).abs().max() / expected.abs().max()),
    }


SMALL_RUN = ["rounds=2", "train_examples=600", "store=none"]
STUDIES = {
    "lira, 4 shadows": ["leakage=lira", "leakage.lira.shadows=4"],
    "geiping, 32 digits, small_cnn": [
        *("model=small_cnn", "leakage=geiping", "leakage.geiping.exposure.examples=32"),
        *("leakage.geiping.exposure.rounds=[initial]", "leakage.geiping.attack.iterations=300"),
    ],
}


def study_row(name: str, clock: Clock) -> Row:
    """A run with its study, on the device and on the CPU: seconds of all of it."""
    import fedexp

    few = [*SMALL_RUN, *STUDIES[name]]
    row: Row = {"study": name}
    for device in dict.fromkeys([clock.device.type, "cpu"]):
        with tempfile.TemporaryDirectory() as folder:
            where = [f"device={device}", "plots=false", "quiet=true", f"hydra.run.dir={folder}/run"]
            row[f"seconds on {device}"] = clock.seconds(lambda w=where: fedexp.run([*few, *w]))
    return row


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--quick", action="store_true", help="smaller, for a look")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="after which nothing begins")
    parser.add_argument("--json", type=Path, default=Path("outputs/gpu.json"))
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("no GPU that torch can use was found; see that it runs with --device cpu --quick")
        return 2
    torch.set_num_threads(1)
    repeatable()  # as in a run
    device = torch.device(arguments.device)
    clock, runs = Clock(device, arguments.minutes), 1 if arguments.quick else 5
    d = 1_663_370 // (100 if arguments.quick else 1)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"
    document: dict[str, object] = {"machine": machine(), "device": name, "quick": arguments.quick}
    print(f"{machine()}, on {name}\n")
    parts: dict[str, list[Callable[[], Row]]] = {
        "workloads": [
            lambda case=case: workload_row(case, clock, runs) for case in chosen(arguments.quick)
        ],
        "rules": [lambda rule=rule: rule_row(rule, clock, runs, d) for rule in contests(50)],
        "studies": [lambda name=name: study_row(name, clock) for name in STUDIES],
    }
    for part, entries in parts.items():
        rows: list[Row] = []
        for entry in entries:
            if clock.left <= 0:
                print(f"no time is left for {len(entries) - len(rows)} of the {part}")
                break
            rows.append(entry())
        document[part] = rows
        if rows:
            print(table(rows) + "\n", flush=True)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(document, indent=1) + "\n")
    print(f"written to {arguments.json}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
