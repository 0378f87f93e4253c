"""Speed and memory, each beside the straightforward code that people write, in one run.

    python scripts/benchmark.py              all of it (minutes); table on stdout, JSON beside it
    python scripts/benchmark.py --quick      one minute's version, smaller sizes
    python scripts/benchmark.py --only W1 median

Ours and the baseline take turns (A B A B ...), so that a machine whose speed drifts slows both.
Quote the ratios, not the seconds. Synthetic MNIST-shaped data; evaluation is left out.

Workloads (after the FedAvg paper's): W1 the 2NN, 1000 clients x 60, 100 a round; W2 its CNN, 100
clients x 600, 10 a round; W3 20 clients x 600 with a small CNN and the coordinate-wise median; W5
W1's model with lognormal client sizes from 10 to 600. Server rules on a float32 matrix of 50
updates of W2's model.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import multiprocessing
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from fedexp.aggregation.geometric_median import weiszfeld_weights
from fedexp.aggregation.geometry import centred_gram, squared_distances
from fedexp.aggregation.mean import Mean
from fedexp.aggregation.median import Median
from fedexp.aggregation.order_statistics import mean_of_sorted
from fedexp.backends.in_process import InProcess
from fedexp.backends.process_pool import ProcessPool
from fedexp.config import available_cores
from fedexp.flat import vector_of
from fedexp.models import cnn, mlp, small_cnn
from fedexp.protocols import Aggregator, Backend
from fedexp.rng import seed_for
from fedexp.training.schedules import Constant
from fedexp.training.sgd import LocalSGD
from fedexp.types import ClientTask, Split, Workload

LR, BATCH = 0.1, 10


@dataclass(frozen=True)
class Case:
    """A workload: what one round is."""

    name: str
    model: nn.Module
    sizes: np.ndarray  # examples of each client
    cohort: np.ndarray
    batch_size: int
    rule: Aggregator
    flops_per_example: float  # forward and backward, multiply and add counted as two


def cases(quick: bool) -> list[Case]:
    """The workloads, or smaller ones that take a tenth of the time."""
    shape, classes = (1, 28, 28), 10
    rng = np.random.default_rng(0)
    few = 4 if quick else 1
    mean, median = Mean("examples"), Median(5)
    torch.manual_seed(0)
    two_nn = mlp(shape, classes, hidden=(200, 200))
    big, small = cnn(shape, classes), small_cnn(shape, classes)
    lognormal = np.clip(np.exp(rng.normal(np.log(60), 1.0, 1000)), 10, 600).astype(int)
    cohort = rng.choice(1000, 100 // few, replace=False)
    return [
        Case("W1 2NN, 100 x 60", two_nn, np.full(1000, 60), cohort, BATCH, mean, 6 * 198_800),
        Case(
            "W2 CNN, 10 x 600",
            big,
            np.full(100, 600),
            rng.choice(100, 10, replace=False)[: 10 // few],
            BATCH,
            mean,
            6 * (784 * 25 * 32 + 196 * 25 * 32 * 64 + 3136 * 512 + 5120),
        ),
        Case(
            "W3 small CNN, 20 x 600, median",
            small,
            np.full(20, 600),
            np.arange(20)[: 20 if few == 1 else 12],
            32,
            median,
            6 * (784 * 9 * 16 + 196 * 9 * 16 * 40 + 1960 * 10),
        ),
        Case("W5 2NN, lognormal sizes", two_nn, lognormal, cohort, BATCH, mean, 6 * 198_800),
    ]


def data_of(case: Case) -> tuple[Split, tuple[np.ndarray, ...]]:
    """Learnable images of ten classes, and every client's rows."""
    n = int(case.sizes.sum())
    g = torch.Generator().manual_seed(0)
    y = torch.randint(0, 10, (n,), generator=g)
    centres = torch.randn(10, 1, 28, 28, generator=g)
    x = centres[y] + torch.randn(n, 1, 28, 28, generator=g)
    edges = np.concatenate([[0], np.cumsum(case.sizes)])
    return Split(x, y), tuple(np.arange(a, b) for a, b in itertools.pairwise(edges))


class PlainLoop:
    """The loop that people write: deepcopy, DataLoader, optim.SGD, state dicts averaged."""

    def __init__(self, case: Case, data: Split, shards: Sequence[np.ndarray]) -> None:
        self.case = case
        self.model = copy.deepcopy(case.model)
        self.sets = {
            c: TensorDataset(
                data.x[torch.from_numpy(shards[c])], data.y[torch.from_numpy(shards[c])]
            )
            for c in case.cohort.tolist()
        }

    def round(self) -> None:
        """One round of FedAvg, or of the coordinate-wise median over state dicts."""
        states, sizes = [], []
        for c in self.case.cohort.tolist():
            local = copy.deepcopy(self.model)
            optimizer = torch.optim.SGD(local.parameters(), lr=LR)
            local.train()
            for x, y in DataLoader(self.sets[c], batch_size=self.case.batch_size, shuffle=True):
                optimizer.zero_grad()
                F.cross_entropy(local(x), y).backward()
                optimizer.step()
            states.append(local.state_dict())
            sizes.append(len(self.sets[c]))
        combined = {}
        for key in states[0]:
            stacked = torch.stack([s[key] for s in states])
            if isinstance(self.case.rule, Median):
                combined[key] = stacked.median(dim=0).values
            else:
                shares = torch.tensor(sizes) / sum(sizes)
                combined[key] = (stacked * shares.view(-1, *[1] * (stacked.dim() - 1))).sum(dim=0)
        self.model.load_state_dict(combined)


class OurRound:
    """The same round through a backend and a rule."""

    def __init__(self, case: Case, backend: Backend) -> None:
        self.case, self.backend = case, backend
        self.params = vector_of(case.model)
        self.trainer = LocalSGD(
            lr=LR,
            batch_size=case.batch_size,
            epochs=1,
            steps=None,
            momentum=0.0,
            weight_decay=0.0,
            proximal=0.0,
            schedule=Constant(),
        )
        self.done = 0

    def round(self) -> None:
        """One round."""
        tasks = [
            ClientTask(c, self.params, self.done, seed_for(0, "client", self.done, c))
            for c in self.case.cohort.tolist()
        ]
        step, _ = self.case.rule(self.backend.train(self.trainer, tasks), {})
        self.params = self.params + step
        self.done += 1


@dataclass(frozen=True)
class Timing:
    """Seconds of several runs of one thing."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """What to quote."""
        return statistics.median(self.seconds)

    def row(self) -> dict[str, float]:
        """For the JSON."""
        return {"median": self.median, "min": min(self.seconds), "max": max(self.seconds)}


def interleaved(
    runs: int, threads: int, contestants: dict[str, tuple[Callable[[], object], int]]
) -> dict[str, Timing]:
    """Time the contestants in turn; each with its own number of torch threads; one warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(runs + 1):
        for name, (function, own_threads) in contestants.items():
            torch.set_num_threads(own_threads)
            started = time.perf_counter()
            function()
            if turn:
                seconds[name].append(time.perf_counter() - started)
    torch.set_num_threads(threads)
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def workload_rows(
    case: Case, runs: int, workers: int, peak_gflops: float
) -> list[dict[str, object]]:
    """The plain loop (torch's default threads) beside ours with one worker and with all."""
    data, shards = data_of(case)
    plain = PlainLoop(case, data, shards)
    device = torch.device("cpu")
    work = Workload(case.model, data, shards, {}, len(case.cohort), device)
    pools = {1: InProcess(work), workers: ProcessPool(work, workers)}
    ours = {n: OurRound(case, pool) for n, pool in pools.items()}
    # The baseline may use every core that the pool uses, in the way that torch offers: threads.
    contestants: dict[str, tuple[Callable[[], object], int]] = {"plain": (plain.round, workers)}
    contestants |= {f"{n}": (o.round, 1) for n, o in ours.items()}
    try:
        timed = interleaved(runs, 1, contestants)
    finally:
        for pool in pools.values():
            pool.close()
    examples = int(case.sizes[case.cohort].sum())
    rows = []
    for name, timing in timed.items():
        ratios = [p / s for p, s in zip(timed["plain"].seconds, timing.seconds, strict=True)]
        cores = workers if name != "1" else 1
        rows.append(
            {
                "case": case.name,
                "who": "plain PyTorch loop" if name == "plain" else f"fedexp, {name} process(es)",
                **timing.row(),
                "ratio": statistics.median(ratios),
                "ratio_min": min(ratios),
                "ratio_max": max(ratios),
                "examples_per_second": examples / timing.median,
                "share_of_peak": examples
                * case.flops_per_example
                / timing.median
                / (peak_gflops * 1e9 * cores),
            }
        )
    return rows


def naive_geometric_median(matrix: Tensor, steps: int) -> Tensor:
    """Weiszfeld's iteration on the rows."""
    point = matrix.mean(dim=0)
    for _ in range(steps):
        weights = 1 / (matrix - point).norm(dim=1).clamp_min(1e-6)
        point = (weights / weights.sum()) @ matrix
    return point


def rule_contests(
    n: int,
) -> dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]]:
    """Name -> (ours, the straightforward torch formulation)."""
    f = n // 5
    uniform = torch.full((n,), 1 / n)
    middle = ((n - 1) // 2, n // 2 + 1)
    weights = torch.ones(n, dtype=torch.float64)

    def geometric_median(x: Tensor) -> Tensor:
        share = weiszfeld_weights(centred_gram(x), weights, 10, 1e-6)
        return share.to(x) @ x

    contests: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
        "mean": (lambda x: uniform @ x, lambda x: (uniform[:, None] * x).sum(dim=0)),
        "median": (
            lambda x: mean_of_sorted(x, *middle),
            lambda x: x.median(dim=0).values,  # the lower of the two middle values, for even n
        ),
        "trimmed mean": (
            lambda x: mean_of_sorted(x, f, n - f),
            lambda x: x.sort(dim=0).values[f : n - f].mean(dim=0),
        ),
        "distances": (
            lambda x: squared_distances(x).sqrt(),
            lambda x: torch.cdist(x, x).double(),
        ),
        "geometric median": (geometric_median, lambda x: naive_geometric_median(x, 10)),
    }
    return contests


def exact_rule(name: str, matrix: Tensor) -> Tensor:
    """The rule on float64 rows, in the most literal way."""
    n = len(matrix)
    ordered = matrix.sort(dim=0).values
    return {
        "mean": lambda: matrix.mean(dim=0),
        "median": lambda: ordered[(n - 1) // 2 : n // 2 + 1].mean(dim=0),
        "trimmed mean": lambda: ordered[n // 5 : n - n // 5].mean(dim=0),
        "distances": lambda: torch.stack([(matrix - row).norm(dim=1) for row in matrix]),
        "geometric median": lambda: naive_geometric_median(matrix, 10),
    }[name]()


def rule_rows(runs: int, quick: bool, names: Sequence[str]) -> list[dict[str, object]]:
    """Server rules on one thread, and what of the memory bandwidth they reach."""
    n, d = 50, 1_663_370 // (10 if quick else 1)
    g = torch.Generator().manual_seed(0)
    matrix = torch.randn(n, d, generator=g)
    rows = []
    torch.set_num_threads(1)
    read = interleaved(runs, 1, {"read": (lambda: matrix.sum(), 1)})["read"]
    for name, (ours, naive) in rule_contests(n).items():
        if names and name not in names:
            continue
        # Against the same rule in float64: the naive float32 forms have errors of their own.
        few = matrix[:, :20_000]
        answer, exact = ours(few).double(), exact_rule(name, few.double())
        error = float((answer - exact).abs().max() / exact.abs().max())
        timed = interleaved(
            runs,
            1,
            {"ours": (lambda f=ours: f(matrix), 1), "naive": (lambda f=naive: f(matrix), 1)},  # type: ignore[misc]
        )
        ratios = [a / b for a, b in zip(timed["naive"].seconds, timed["ours"].seconds, strict=True)]
        rows.append(
            {
                "case": f"{name} [{n}, {d}]",
                "who": "fedexp",
                **timed["ours"].row(),
                "naive": timed["naive"].median,
                "ratio": statistics.median(ratios),
                "ratio_min": min(ratios),
                "ratio_max": max(ratios),
                "times_reading": timed["ours"].median / read.median,
                "largest_difference": error,
            }
        )
    return rows


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


def memory_of(n_clients: int, examples_each: int) -> float:
    """Peak memory in MB of two rounds with 100 clients a round, in a process of its own."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import benchmark;"
        "benchmark.memory_probe(int(sys.argv[2]), int(sys.argv[3]))"
    )
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", code, here, str(n_clients), str(examples_each)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(answer.stdout)


def memory_probe(n_clients: int, examples_each: int) -> None:
    """Print the peak memory of two rounds in this process."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = mlp((1, 28, 28), 10, hidden=(200, 200))
    cohort = np.arange(100)
    case = Case("", model, np.full(n_clients, examples_each), cohort, BATCH, Mean("examples"), 0)
    data, shards = data_of(case)
    ours = OurRound(
        case, InProcess(Workload(model, data, shards, {}, len(cohort), torch.device("cpu")))
    )
    ours.round()
    ours.round()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)


def machine() -> dict[str, object]:
    """What the figures were measured on."""
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


def table(rows: Sequence[dict[str, object]]) -> str:
    """Markdown of the rows of one kind."""
    if not rows:
        return ""
    titles = list(rows[0])
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    for row in rows:
        cells = [f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a minute's version")
    parser.add_argument("--only", nargs="*", default=[], help="W1 W2 W3 W5 memory, or rules' names")
    parser.add_argument("--runs", type=int, help="counted runs of each (default 5; quick 3)")
    parser.add_argument("--workers", type=int, default=2, help="processes of the pool")
    parser.add_argument("--json", type=Path, default=Path("outputs/benchmark.json"))
    arguments = parser.parse_args()
    runs = arguments.runs or (3 if arguments.quick else 5)
    only = set(arguments.only)
    document: dict[str, object] = {"machine": machine(), "quick": arguments.quick}
    print(f"{machine()}\n")
    peak = arithmetic_peak()
    document["peak_gflops_of_one_core"] = peak
    workloads: list[dict[str, object]] = []
    for case in cases(arguments.quick):
        if not only or case.name.split()[0] in only:
            workloads += workload_rows(case, runs, arguments.workers, peak)
            print(table(workloads[-3:]) + "\n", flush=True)
    rules = only - {"W1", "W2", "W3", "W5", "memory"}
    server = rule_rows(runs, arguments.quick, sorted(rules)) if rules or not only else []
    if server:
        print(table(server) + "\n", flush=True)
    document |= {"workloads": workloads, "server_rules": server}
    if not only or "memory" in only:
        few, many = memory_of(100, 600), memory_of(10_000, 6)
        document["memory_mb"] = {"100 clients": few, "10,000 clients": many, "ratio": many / few}
        print(f"peak memory: 100 clients {few:.0f} MB, 10,000 clients {many:.0f} MB\n")
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(document, indent=1) + "\n")
    print(f"written to {arguments.json}")


if __name__ == "__main__":
    multiprocessing.freeze_support()
    os.environ.setdefault("OMP_NUM_THREADS", str(available_cores()))
    main()
