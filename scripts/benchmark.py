"""Speed and memory, each beside the straightforward code that people write, in one run.

    python scripts/benchmark.py              all of it (minutes); table on stdout, JSON beside it
    python scripts/benchmark.py --quick      one minute's version, smaller sizes
    python scripts/benchmark.py --only W1 median

Ours and the baselines take turns (A B A B ...), so that a machine whose speed drifts slows all
alike. Quote the ratios, not the seconds. Evaluation is left out. What is measured is described in
`benchmarks/`: workloads W1 to W5, server rules, memory, and what grows with the number of clients.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from collections.abc import Sequence
from pathlib import Path

from benchmarks.engine import workload_rows
from benchmarks.growth import FEW_CLIENTS, MANY_CLIENTS, growth_rows
from benchmarks.machine import arithmetic_peak, machine
from benchmarks.memory import memory_of
from benchmarks.rules import rule_rows
from benchmarks.secure_aggregation import rows as secure_aggregation_rows
from benchmarks.workloads import WORKLOADS, cases

from fedexp.core.cores import available_cores


def table(rows: Sequence[dict[str, object]]) -> str:
    """Markdown of the rows of one kind."""
    titles = list(rows[0])
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    for row in rows:
        cells = [f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a minute's version")
    parser.add_argument(
        "--only",
        nargs="*",
        default=[],
        help=f"{' '.join(WORKLOADS)} secagg memory growth ray, or rules' names",
    )
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
        if not only or case.key in only:
            rows = workload_rows(case, runs, arguments.workers, peak)
            workloads += rows
            print(table(rows) + "\n", flush=True)
    rules = only - {*WORKLOADS, "secagg", "memory", "growth", "ray"}
    server = rule_rows(runs, arguments.quick, sorted(rules)) if rules or not only else []
    if server:
        print(table(server) + "\n", flush=True)
    document |= {"workloads": workloads, "server_rules": server}
    if not only or "secagg" in only:
        document["secure_aggregation"] = secagg = secure_aggregation_rows(arguments.quick)
        print(table(secagg) + "\n", flush=True)
    if not only or "memory" in only:
        few, many = memory_of(100, 600), memory_of(10_000, 6)
        document["memory_mb"] = {"100 clients": few, "10,000 clients": many, "ratio": many / few}
        print(f"peak memory: 100 clients {few:.0f} MB, 10,000 clients {many:.0f} MB\n")
    if "ray" in only:  # which is not installed everywhere
        from benchmarks.ray import many_rows, overhead_rows

        document["ray"] = overhead = overhead_rows(runs, arguments.quick, arguments.workers)
        document["many_clients"] = many = many_rows(arguments.quick, arguments.workers)
        print(f"{table(overhead)}\n\n{table(many)}\n", flush=True)
    if not only or "growth" in only:
        sizes = FEW_CLIENTS if arguments.quick else MANY_CLIENTS
        document["growth"] = growth = growth_rows(sizes, runs)
        print(table(growth) + "\n", flush=True)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(document, indent=1) + "\n")
    print(f"written to {arguments.json}")


if __name__ == "__main__":
    multiprocessing.freeze_support()
    os.environ.setdefault("OMP_NUM_THREADS", str(available_cores()))
    main()
