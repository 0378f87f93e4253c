"""Runs and sweeps with attackers and detectors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from fedexp.reporting.results import Run, load_run
from fedexp.reporting.robustness import robustness_table
from tests.support.run_folders import write_run
from tests.support.sweep_folders import load

Rows = list[tuple[int, str, str, str, float]]

# client: (score, malicious, flagged), the same in both rounds. Of the 2 x 3 pairs of a malicious
# and an honest one, 5 have the higher score on the malicious side: the AUC is 5/6.
UPDATES = {0: (1.0, 0, 0), 1: (2.0, 0, 0), 2: (4.0, 0, 1), 3: (3.0, 1, 0), 4: (9.0, 1, 1)}


def of_a_detector(rounds: Sequence[int] = (3, 4), factor: float = 1.0) -> Rows:
    rows: Rows = []
    for number in rounds:
        rows.append((number, "round", "all", "threshold", 3.5 * factor))
        for client, (score, malicious, flagged) in UPDATES.items():
            rows += [
                (number, "update", str(client), "score", score * factor),
                (number, "update", str(client), "malicious", float(malicious)),
                (number, "update", str(client), "flagged", float(flagged)),
            ]
    return rows


def of_an_attack(first: int = 1, rounds: int = 8) -> Rows:
    rows: Rows = []
    for number in range(1, rounds + 1):
        rows.append((number, "round", "all", "malicious", 2.0 * (number >= first)))
        rows.append((number, "attack", "all", "success", number / 10))
    return rows


def run_with(folder: Path, more: Rows, **options: object) -> Run:
    small = {"rounds": 8, "n_clients": len(UPDATES), "class_names": ("no", "yes")}
    attacked = {"choices": {"attack": "backdoor"}}
    return load_run(write_run(folder / "r", **small | attacked | options, more=more))


ACCURACY = {
    ("mean", "none"): (0.96, 0.98),
    ("mean", "sign_flip"): (0.50, 0.60),
    ("mean", "alie"): (0.80, 0.90),
    ("krum", "none"): (0.90, 0.94),
    ("krum", "sign_flip"): (0.90, 0.90),
    ("krum", "alie"): (0.70, 0.72),
}


def write_sweep(folder: Path, accuracy: dict, **options: object) -> Path:
    for (aggregator, attack), values in accuracy.items():
        for seed, value in enumerate(values):
            write_run(
                folder / f"aggregator={aggregator},attack={attack},seed={seed}",
                seed=seed,
                choices={"aggregator": aggregator, "attack": attack},
                final={"accuracy": value},
                **{"rounds": 2, "n_clients": 2} | options,
            )
    return folder


def table_of(folder: Path) -> pd.DataFrame:
    table = robustness_table(load(folder))
    assert table is not None
    return table


def rows_of(folder: Path) -> pd.DataFrame:
    return table_of(folder).set_index(["defence", "attack"])
