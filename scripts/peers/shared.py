"""What every contestant is given, and what it has to say; NumPy and the standard library only.

A workload is a folder:

    workload.json       batch size, lr, clients a round, rule, whether DP-SGD, and its name
    x.npy y.npy         training rows, `[n, 1, 28, 28]` float32 (mean 0, deviation 1), `[n]` int64
    x_test.npy y_test.npy
    edges.npy           client k holds the rows edges[k] to edges[k + 1]
    start.npz           the first model's tensors, in torch's names, order and layout
    data.npz shards.npz start.safetensors    the same for `fedexp run` (see workloads.py)

A contestant prints one line of JSON a round, and one at the end.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Workload:
    """A workload as it lies on the disk."""

    folder: Path
    name: str
    model: str  # mlp: the 2NN; cnn: the FedAvg paper's
    batch_size: int
    lr: float
    per_round: int  # clients a round
    rule: str  # mean or median
    private: bool  # DP-SGD in the clients, clip 1, noise multiplier 1

    @classmethod
    def read(cls, folder: Path) -> Workload:
        """What `write` of workloads.py wrote."""
        return cls(folder=folder, **json.loads((folder / "workload.json").read_text()))

    def array(self, name: str) -> np.ndarray:
        """`x`, `y`, `x_test`, `y_test` or `edges`; memory-mapped, nothing is read yet."""
        array: np.ndarray = np.load(self.folder / f"{name}.npy", mmap_mode="r")
        return array

    def start(self) -> dict[str, np.ndarray]:
        """The first model's tensors."""
        with np.load(self.folder / "start.npz") as file:
            return {name: file[name] for name in file.files}

    def shards(self) -> list[slice]:
        """Every client's rows."""
        return [slice(a, b) for a, b in pairwise(self.array("edges").tolist())]

    def client(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Client k's rows, in memory."""
        rows = self.shards()[k]
        return np.array(self.array("x")[rows]), np.array(self.array("y")[rows])


def arguments(**more: Sequence[str]) -> argparse.Namespace:
    """`--workload FOLDER --rounds N`, and choices of a contestant's own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workload", type=Path, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    for name, choices in more.items():
        parser.add_argument(f"--{name}", choices=choices, required=True)
    return parser.parse_args()


class Rounds:
    """Says how long each round took, from the end of the one before."""

    def __init__(self) -> None:
        self._last = time.perf_counter()

    def begin(self) -> None:
        """The first round starts now."""
        self._last = time.perf_counter()

    def done(self, besides: float = 0.0) -> None:
        """A round has ended; `besides`: seconds of it that are no round's work."""
        now = time.perf_counter()
        say(seconds=now - self._last - besides)
        self._last = now


def say(**what: Any) -> None:
    """One line of JSON."""
    print(json.dumps(what), flush=True)


def finish(accuracy: float, *packages: str) -> None:
    """The shared model's accuracy on the test rows, and what it was made with."""
    versions = {name: importlib.metadata.version(name) for name in packages}
    say(accuracy=accuracy, versions=versions)
