"""fedexp beside pfl, Flower, FedJAX, ByzFL and Opacus, on the same arrays and the same first model.

    python scripts/peers/compare.py --setup pfl flower    make their environments (or: --setup all)
    python scripts/peers/compare.py                       all workloads; everybody who is installed
    python scripts/peers/compare.py --only W1 pfl         one workload, fedexp beside one peer
    python scripts/peers/compare.py --list                who takes part in what

Every run is a process of its own. Contestants take turns (A B C A B C), so that a machine whose
speed drifts slows all alike: quote the ratios. What is equal and what is not: docs/peers.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

SCRIPTS, ROOT = Path(__file__).parents[1], Path(__file__).parents[2]
sys.path[:0] = [str(SCRIPTS), str(ROOT)]

from benchmarks.machine import machine  # noqa: E402

from fedexp.core.cores import available_cores  # noqa: E402
from peers.contestants import CONTESTANTS, OURS, Contestant, with_overrides  # noqa: E402
from peers.environments import DEFAULT_FOLDER, PEERS, Environments  # noqa: E402
from peers.measure import Outcome, run  # noqa: E402
from peers.results import rows_of, table  # noqa: E402
from peers.shared import Workload  # noqa: E402
from peers.workloads import all_cases, write  # noqa: E402

# Counted rounds of a run: so many that most runs take about ten seconds.
ROUNDS = {"W1": 10, "W2": 2, "W3": 4, "W3-CNN": 2, "W4": 3, "W4-CNN": 1, "W5": 10}
BY_DEFAULT = tuple(key for key in ROUNDS if key != "W5")  # W5 is W1 with unequal clients


def main() -> int:
    given = arguments()
    environments = Environments(given.environments)
    if given.setup:
        for peer in PEERS if "all" in given.setup else given.setup:
            print(f"setting up {peer}: {' '.join(PEERS[peer].requirements)}", flush=True)
            environments.install(peer)
        return 0
    chosen = choice(given.only)
    if given.list:
        print("\n".join(f"{key}: {' '.join(names)}" for key, names in chosen.items()))
        return 0
    # Somebody who ends the comparison ends the contestant too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    document: dict[str, Any] = {"machine": machine(), "versions": {}, "rows": [], "runs": {}}
    print(f"{machine()}\n", flush=True)
    chosen = installed(chosen, environments)
    place = given.workloads.resolve() / ("quick" if given.quick else "full")
    cases, everybody = all_cases(given.quick), with_overrides(given.overrides)
    for key, names in chosen.items():
        workload = write(cases[key], place / key)
        counted = given.rounds or ROUNDS[key]
        contestants = {name: everybody[name] for name in names}
        outcomes = in_turn(
            contestants, environments, workload, counted + 1, given.repeats, given.threads
        )
        rows = rows_of(outcomes)
        print(f"{key}: {workload.name}; {given.repeats} runs of 1 + {counted} rounds\n")
        print(table(rows) + "\n", flush=True)
        document["rows"] += [{"workload": key, **row} for row in rows]
        document["runs"][key] = {who: [asdict(o) for o in runs] for who, runs in outcomes.items()}
        for outcome in (o for runs in outcomes.values() for o in runs):
            document["versions"] |= outcome.versions
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(document, indent=1) + "\n")
    print("versions: " + ", ".join(f"{k} {v}" for k, v in sorted(document["versions"].items())))
    print(f"written to {given.json}")
    return int(any("failure" in row for row in document["rows"]))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--setup", nargs="+", choices=("all", *PEERS), help="and nothing else")
    parser.add_argument("--list", action="store_true", help="say who takes part, and nothing else")
    parser.add_argument("--only", nargs="+", default=[], choices=(*ROUNDS, *CONTESTANTS))
    parser.add_argument("--quick", action="store_true", help="fewer clients: does all of it run?")
    parser.add_argument("--rounds", type=int, help="counted rounds of every run")
    parser.add_argument("--repeats", type=int, default=2, help="runs of every contestant (2)")
    parser.add_argument("--threads", type=int, help="of a peer of one process (one a core)")
    parser.add_argument("--overrides", nargs="+", default=[], help="more for `fedexp run`")
    parser.add_argument("--environments", type=Path, default=DEFAULT_FOLDER)
    parser.add_argument("--workloads", type=Path, default=Path("outputs/peers/workloads"))
    parser.add_argument("--json", type=Path, default=Path("outputs/peers/results.json"))
    return parser.parse_args()


def choice(only: Sequence[str]) -> dict[str, list[str]]:
    """Contestants of each workload; fedexp is always among them."""
    who = [name for name in only if name in CONTESTANTS]
    taking_part = {*who, *OURS} if who else set(CONTESTANTS)
    return {
        key: [n for n, c in CONTESTANTS.items() if n in taking_part and key in c.workloads]
        for key in [key for key in only if key in ROUNDS] or BY_DEFAULT
    }


def installed(
    chosen: Mapping[str, Sequence[str]], environments: Environments
) -> dict[str, list[str]]:
    """Those who are there; one line for each of the others."""
    names = {name for contestants in chosen.values() for name in contestants}
    missing = {name: CONTESTANTS[name].missing(environments) for name in names}
    for command in sorted({command for command in missing.values() if command}):
        print(f"not installed: {command}\n", flush=True)
    return {key: [n for n in names if not missing[n]] for key, names in chosen.items()}


def in_turn(
    contestants: Mapping[str, Contestant],
    environments: Environments,
    workload: Workload,
    n_rounds: int,
    repeats: int,
    threads: int | None = None,
) -> dict[str, list[Outcome]]:
    """Every contestant's runs, A B C A B C; one that has failed does not start again."""
    outcomes: dict[str, list[Outcome]] = {name: [] for name in contestants}
    for _ in range(repeats):
        for name, runs in outcomes.items():
            if runs and runs[-1].failure:
                continue
            folder = Path(tempfile.mkdtemp(prefix=f"peers-{name}-"))
            contestant = contestants[name]
            command = contestant.command(environments, workload, n_rounds, folder)
            runs.append(run(command, variables(contestant, threads), folder))
            if not runs[-1].failure:  # what a failed one has said stays, to be read
                shutil.rmtree(folder)
    return outcomes


def variables(contestant: Contestant, threads: int | None) -> dict[str, str]:
    """The environment variables of a contestant's process; `threads`: None for one a core."""
    cores = available_cores()
    return os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(SCRIPTS)]),
        "PEERS_CORES": str(cores),
        "OMP_NUM_THREADS": str(contestant.threads or threads or cores),
        "CUDA_VISIBLE_DEVICES": "",  # all on the processor
    }


if __name__ == "__main__":
    sys.exit(main())
