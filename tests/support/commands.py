"""Starts `fedexp` in a process of its own, and looks at what a run has left."""

import csv
import json
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from fedexp.commands.cli import main
from fedexp.core.metric import Metric
from fedexp.run_folder.client_rows import read_tables

FEDEXP = [sys.executable, "-m", "fedexp"]
# What may differ between a run and the same run interrupted, or with other workers.
ABOUT_THE_MACHINE = (
    "seconds",
    "examples_per_second",
    "peak_memory_mb",
    "peak_memory_of_a_worker_mb",
    "git_commit",
    "rounds_from_store",
)
FILES_OF_EQUAL_RUNS = (
    "metrics.csv",
    "clients.bin",
    "model.safetensors",
    "confusion_matrix.csv",
    "partition.json",
)


def fedexp(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """`fedexp arguments` in a process of its own, to its end."""
    return subprocess.run(
        [*FEDEXP, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **(env or {})},
    )


def start(*arguments: str) -> subprocess.Popen[str]:
    """`fedexp arguments`, left running, in a process group of its own as in a terminal."""
    return subprocess.Popen(
        [*FEDEXP, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


class Started(Protocol):
    """What a test may do with what it started."""

    pid: int

    def poll(self) -> int | None: ...
    def communicate(self) -> tuple[str, str]: ...


class Copy:
    """A copy of this process that does `work(*arguments)`, in a process group of its own.

    It has imported everything already, which takes a new process most of its time. For what is to
    be killed; how a new process starts, speaks and ends is not to be seen here.
    """

    def __init__(self, work: Callable[..., object], *arguments: object) -> None:
        fork = multiprocessing.get_context("fork")
        self._process = fork.Process(target=_apart, args=(work, *arguments))
        with warnings.catch_warnings():
            # Python 3.12 warns of threads; pytest-xdist's hold no lock that a run could want.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def communicate(self) -> tuple[str, str]:
        self._process.join()
        return "", ""


def _apart(work: Callable[..., object], *arguments: object) -> None:
    os.setsid()
    sys.argv = ["fedexp"]
    work(*arguments)


def start_to_kill(*arguments: str) -> Copy:
    """`fedexp arguments`, left running, for `kill`."""
    return Copy(main, arguments)


def wait_for_round(process: Started, folder: Path, number: int) -> None:
    """Until round `number` is recorded and saved: the next one is under way."""
    checkpoint = folder / "checkpoints" / f"round-{number:06d}.pt"
    deadline = time.monotonic() + 300  # of a busy machine
    while not checkpoint.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "the run does not get there"
        time.sleep(0.005)


def kill(process: Started) -> None:
    """As the kernel does when memory runs out: the process cannot say or save anything."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def alive_in_group(group: int) -> list[str]:
    """The names of the processes of a group that have not ended."""
    alive = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = stat.read_text().rpartition(")")
        except OSError:
            continue
        state, _, process_group = rest.split()[:3]
        if int(process_group) == group and state != "Z":  # a zombie only waits to be counted
            alive.append(name)
    return alive


def summary_of(folder: Path) -> dict:
    """`summary.json`, which every JSON parser must be able to read (no NaN)."""
    return json.loads((folder / "summary.json").read_text(), parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


def rows_of(folder: Path) -> list[tuple]:
    """The measured numbers, as (round, scope, client, metric, value); None for what is not one."""
    rows = [(row.round, *row_of(row)) for table in read_tables(folder) for row in table.rows()]
    return rows_of_csv(folder) + rows


def row_of(row: Metric) -> tuple:
    return row.scope, row.client, row.metric, row.value if math.isfinite(row.value) else None


def rows_of_csv(folder: Path) -> list[tuple]:
    """The same from `metrics.csv`, which has no single clients'."""
    with open(folder / "metrics.csv", newline="") as file:
        return [
            (int(r["round"]), r["scope"], r["client"], r["metric"], _number(r["value"]))
            for r in csv.DictReader(file)
        ]


def _number(cell: str) -> float | None:
    if not cell:
        return None
    assert math.isfinite(float(cell))
    return float(cell)


def assert_same_bits(folder: Path, reference: Path) -> None:
    """The two runs measured the same and ended with the same model, to the last bit."""
    for name in FILES_OF_EQUAL_RUNS:
        assert (folder / name).read_bytes() == (reference / name).read_bytes(), name
    ours, theirs = summary_of(folder), summary_of(reference)
    for key in {*ours, *theirs} - {*ABOUT_THE_MACHINE, "overrides"}:
        assert ours.get(key) == theirs.get(key), key
    names = [sorted(p.name for p in (f / "checkpoints").iterdir()) for f in (folder, reference)]
    assert names[0] == names[1]
    best = [(f / "checkpoints" / "best.pt").read_bytes() for f in (folder, reference)]
    assert best[0] == best[1]
