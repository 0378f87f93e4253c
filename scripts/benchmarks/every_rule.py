"""What every rule of conf/ costs on one matrix: the table that finds the slow ones.

    PYTHONPATH=.:scripts python -m benchmarks.every_rule --clients 1000 --numbers 199210
    PYTHONPATH=.:scripts python -m benchmarks.every_rule --only median nnm --runs 3

A fifth of the clients may lie, or as many as a rule that tries subsets takes. Wall seconds on all
cores and the CPU seconds that went into them, medians over the runs; the lines are JSON, so that
two versions of the code can be laid side by side. Rows are drawn around one another as clients'
are: 0.3 of what they have in common, and noise of their own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from fedexp.config.folders import conf_folder
from fedexp.config.schema import register
from fedexp.core.checks import InputError
from fedexp.core.rng import generator
from fedexp.core.types import Updates

CONF = conf_folder()
FRACTIONS = (5, 10, 20, 50, 100, 500, 10**9)  # one in so many may lie; the last means nobody


def updates_of(n: int, d: int) -> Updates:
    """Rows with something in common, from clients of unequal size."""
    drawn = torch.Generator().manual_seed(0)
    matrix = torch.randn(n, d, generator=drawn)
    matrix += 0.3 * torch.randn(d, generator=drawn)
    sizes = torch.randint(10, 600, (n,), generator=drawn).double()
    return Updates(matrix, tuple(range(n)), sizes, reference=matrix[0].clone())


def choices() -> list[tuple[str, str]]:
    """Group and name of every rule and every part before it."""
    return [
        (group, path.stem)
        for group in ("aggregator", "pre_aggregation")
        for path in sorted((CONF / group).glob("*.yaml"))
        if path.stem != "none"
    ]


def calls(group: str, name: str, updates: Updates) -> Iterator[tuple[int, Callable[[], object]]]:
    """With how many liars, and the call; from many liars to none."""
    n, d = updates.matrix.shape
    for one_in in FRACTIONS:
        f = n // one_in
        document = {"n_clients": n, "assumed_malicious": f, "attack": {"extra_clients": False}}
        config = OmegaConf.create({**document, "it": OmegaConf.load(CONF / group / f"{name}.yaml")})
        node: Any = OmegaConf.to_container(config.it, resolve=True)
        part = instantiate(node if group == "aggregator" else node[name], _convert_="all")
        if group == "aggregator":
            state = part.init(d)
            yield f, lambda part=part, state=state: part(updates, state, generator(0, "rule"))  # type: ignore[misc]
        else:
            yield f, lambda part=part: part(updates, generator(0, "rule"))  # type: ignore[misc]


def cost(group: str, name: str, updates: Updates, runs: int) -> dict[str, object]:
    """One line of the table: the most liars that the rule takes, and its seconds."""
    for f, call in calls(group, name, updates):
        wall, cpu = [], []
        try:
            for _ in range(runs):
                began, busy = time.perf_counter(), time.process_time()
                call()
                wall.append(time.perf_counter() - began)
                cpu.append(time.process_time() - busy)
        except InputError:  # too many subsets, or too many liars for Bulyan
            continue
        return {"rule": name, "f": f, "s": statistics.median(wall), "cpu": statistics.median(cpu)}
    return {"rule": name, "f": None, "s": None, "cpu": None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--numbers", type=int, default=199_210)
    parser.add_argument("--only", nargs="*", default=[], help="names of rules; all without it")
    parser.add_argument("--leave-out", nargs="*", default=[], help="names of rules")
    parser.add_argument("--runs", type=int, default=1)
    arguments = parser.parse_args()
    register()
    torch.set_num_threads(1)  # as in a run
    updates = updates_of(arguments.clients, arguments.numbers)
    for group, name in choices():
        if name in arguments.leave_out or (arguments.only and name not in arguments.only):
            continue
        print(json.dumps(cost(group, name, updates, arguments.runs)), flush=True)


if __name__ == "__main__":
    main()
