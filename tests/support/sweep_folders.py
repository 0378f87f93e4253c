"""Sweeps as `fedexp run -m` leaves them."""

from __future__ import annotations

from pathlib import Path

from fedexp.reporting.finding import find_runs
from fedexp.reporting.results import Run, load_run
from tests.support.run_folders import write_config, write_failed, write_run


def write_two_rules(folder: Path) -> Path:
    """Mean and krum, seeds 0 to 2; krum's seed 1 failed, and one job died without a config."""
    (folder / "multirun.yaml").write_text("")
    for seed, accuracy in enumerate((0.90, 0.94, 0.98)):
        job = folder / f"aggregator=mean,seed={seed}"
        write_run(job, seed=seed, rounds=6, n_clients=2, final={"accuracy": accuracy})
    for seed in (0, 2):
        write_run(
            folder / f"aggregator=krum,seed={seed}",
            seed=seed,
            rounds=6,
            n_clients=2,
            final={"accuracy": 0.8 + seed / 100},
            choices={"aggregator": "krum"},
        )
    failed = folder / "aggregator=krum,seed=1"
    write_config(failed, seed=1, rounds=6, n_clients=2, choices={"aggregator": "krum"})
    write_failed(failed, "aggregator.f=9: needs n >= 2f + 3 | have 10")
    write_failed(folder / "aggregator=mean,seed=3", "no space left on device")
    return folder


def load(folder: Path) -> list[Run]:
    return [load_run(path) for path in find_runs([folder])]
