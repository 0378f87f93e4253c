"""What grows with the number of clients, at a cohort of 100 clients of 6 examples.

Whole runs as `fedexp run` makes them, with partition=virtual on one collection of 6,000,000 tiny
images, of which the fewer clients hold the fewer. Each is a process of its own; they take turns.
Times are of the processor, from round to round, so that sampling, training, recording and
checkpoints are in them; rounds with an evaluation are left out.

    python -m benchmarks.growth N_CLIENTS FOLDER    prints the row of one run as JSON
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from fedexp.core.examples import Dataset, Split
from fedexp.core.round_record import RoundRecord

MANY_CLIENTS = (1_000, 10_000, 100_000, 1_000_000)
FEW_CLIENTS = (1_000, 1_000_000)
EXAMPLES = 6  # of every client
ROUNDS, EVALUATED = 41, 20  # every so many rounds

# What is there once, however many clients there are.
_ALWAYS = ("fedexp.log", "config.yaml", "origin.json", ".lock")


@dataclass(frozen=True)
class TinyImages:
    """Random images of 16 bytes, brightest where their class is; with the keys of digits."""

    name: str
    input_shape: tuple[int, ...]
    num_classes: int
    validation_size: int
    test_size: int
    split_seed: int

    def __call__(self, data_dir: Path) -> Dataset:
        """The dataset."""
        sizes = (max(MANY_CLIENTS) * EXAMPLES, self.validation_size, self.test_size)
        parts = [self._part(n, self.split_seed + k) for k, n in enumerate(sizes)]
        return Dataset(self.name, *parts, tuple(map(str, range(self.num_classes))))

    def files(self, data_dir: Path) -> tuple[()]:
        """None."""
        return ()

    def _part(self, n: int, seed: int) -> Split:
        g = torch.Generator().manual_seed(seed)
        x = torch.randint(0, 128, (n, 16), generator=g, dtype=torch.uint8)
        y = torch.randint(0, self.num_classes, (n,), generator=g)
        x.scatter_(1, y[:, None], 255)
        return Split(x.view(n, *self.input_shape), y, divisor=255)


CLOCK: dict[int, float] = {}  # processor seconds of this process at the end of every round


class Clock:
    """An observer that looks at the clock."""

    def run_started(self, run: object) -> None:
        """Nothing to do."""

    def round_done(self, state: object, record: RoundRecord) -> None:
        """Note when it was."""
        CLOCK[record.round] = time.process_time()

    def run_ended(self, summary: Mapping[str, object]) -> None:
        """Nothing to do."""


def growth_rows(sizes: Sequence[int], runs: int) -> list[dict[str, object]]:
    """A row for every number of clients, medians over `runs` runs, and the last by the first."""
    found: dict[int, list[dict[str, float]]] = {n: [] for n in sizes}
    for _ in range(runs):
        for n in sizes:
            with tempfile.TemporaryDirectory() as folder:
                found[n].append(_in_a_process(n, Path(folder) / "run"))
    rows: list[dict[str, object]] = []
    for n, measured in found.items():
        medians = {key: statistics.median(m[key] for m in measured) for key in measured[0]}
        rows.append({"clients": f"{n:,}", **medians})
    first, last = rows[0], rows[-1]
    ratios = {key: last[key] / first[key] for key in list(first)[1:]}
    return [*rows, {"clients": "last / first", **ratios}]


def _in_a_process(n_clients: int, folder: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.growth", str(n_clients), str(folder)]
    scripts = Path(__file__).parents[1]
    answer = subprocess.run(command, cwd=scripts, capture_output=True, text=True, check=True)
    return dict(json.loads(answer.stdout))


def measured(n_clients: int, folder: Path) -> dict[str, float]:
    """Carry out one run here."""
    from benchmarks.growth import CLOCK  # not that of __main__: the run imports the module
    from fedexp import api

    api.run(
        [
            *("dataset._target_=benchmarks.growth.TinyImages", "dataset.input_shape=[1,4,4]"),
            *("trust=[benchmarks.]", "partition=virtual", f"partition.examples={EXAMPLES}"),
            *(f"n_clients={n_clients}", "cohort_size=100", f"rounds={ROUNDS}", "training.epochs=1"),
            *(f"eval_every={EVALUATED}", "plots=false", "quiet=true", "backend=in_process"),
            *("+tracker.clock._target_=benchmarks.growth.Clock", f"hydra.run.dir={folder}"),
        ]
    )
    rounds = [CLOCK[r] - CLOCK[r - 1] for r in CLOCK if r - 1 in CLOCK and r % EVALUATED]
    return {"CPU ms a round": 1e3 * statistics.median(rounds), **_looked_at(folder)}


def _looked_at(folder: Path) -> dict[str, float]:
    summary = json.loads((folder / "summary.json").read_text())
    files = [p for p in folder.rglob("*") if p.is_file() and p.name not in _ALWAYS]
    return {
        "peak memory, MB": summary["peak_memory_mb"],
        "record, MB": sum(p.stat().st_size for p in files) / 1e6,
    }


if __name__ == "__main__":
    print(json.dumps(measured(int(sys.argv[1]), Path(sys.argv[2]))))
