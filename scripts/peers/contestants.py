"""Who takes part in what, with which command.

fedexp takes part as users start it: `fedexp run` with a config that says the workload.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from peers.environments import PEERS, Environments
from peers.shared import Workload

WIDE, ROBUST, PRIVATE = ("W1", "W2", "W5"), ("W3", "W3-CNN"), ("W4", "W4-CNN")
SCRIPTS = Path(__file__).parents[1]


class Contestant(Protocol):
    """Somebody who can run a workload in a process of its own."""

    workloads: Sequence[str]
    threads: int | None  # of torch in a process; None: as many as there are cores

    def missing(self, environments: Environments) -> str | None:
        """The command that installs it; None where it is there."""

    def command(
        self, environments: Environments, workload: Workload, n_rounds: int, folder: Path
    ) -> list[str]:
        """What to start; `folder` is empty and its own."""


@dataclass(frozen=True)
class Fedexp:
    """`fedexp run`."""

    backend: str
    workloads: Sequence[str] = (*WIDE, *ROBUST, *PRIVATE)
    threads: int | None = None  # it knows by itself
    more: Sequence[str] = ()  # overrides

    def missing(self, environments: Environments) -> None:
        """Never: it is what this repository holds."""

    def command(
        self, environments: Environments, workload: Workload, n_rounds: int, folder: Path
    ) -> list[str]:
        """The workload as overrides."""
        place = (f"backend={self.backend}", f"hydra.run.dir={folder / 'run'}")
        return [
            sys.executable,
            "-m",
            "fedexp",
            "run",
            *overrides(workload, n_rounds),
            *place,
            *self.more,
        ]


def overrides(workload: Workload, n_rounds: int) -> list[str]:
    """`fedexp run`'s arguments that say the workload."""
    settings = {
        "dataset": "arrays",
        "dataset.path": workload.folder / "data.npz",
        "partition": "file",
        "partition.path": workload.folder / "shards.npz",
        "cohort_size": workload.per_round,
        "model": workload.model,
        "model.weights": workload.folder / "start.safetensors",
        "training.batch_size": workload.batch_size,
        "training.lr": workload.lr,
        "training.epochs": 1,
        "aggregator": workload.rule,
        "rounds": n_rounds,
        "eval_every": n_rounds,  # the last round alone; its seconds are taken away
        "plots": "false",
        "quiet": "true",
        "tracker": "stopwatch",
        "trust": "[peers.]",
    }
    if workload.private:
        settings |= {"privacy": "dp_sgd", "privacy.noise_multiplier": 1.0}
    words = [f"{key}={value}" for key, value in settings.items()]
    return ["--config-dir", str(SCRIPTS / "peers" / "conf"), *words]


@dataclass(frozen=True)
class Script:
    """One of `peers/with_*.py`, in the environment of a peer."""

    module: str
    environment: str | None  # None: the Python that compares
    workloads: Sequence[str]
    options: Sequence[str] = ()
    threads: int | None = None

    def missing(self, environments: Environments) -> str | None:
        """The command that installs the peer."""
        if self.environment is None or environments.python(self.environment) is not None:
            return None
        return environments.how_to_install(self.environment)

    def command(
        self, environments: Environments, workload: Workload, n_rounds: int, folder: Path
    ) -> list[str]:
        """The script with its arguments."""
        python = environments.python(self.environment) if self.environment else sys.executable
        given = ("--workload", str(workload.folder), "--rounds", str(n_rounds), *self.options)
        return [str(python), "-W", "ignore", "-m", f"peers.{self.module}", *given]


CONTESTANTS: Mapping[str, Contestant] = {
    "fedexp-auto": Fedexp("auto"),
    "fedexp-pool": Fedexp("process_pool"),
    "plain-loop": Script("with_loops", None, ("W1", "W3", "W5"), ("--kind", "plain")),
    "pfl": Script("with_pfl", "pfl", WIDE, threads=1),
    "flower": Script("with_flower", "flower", (*WIDE, *ROBUST), threads=1),
    "fedjax": Script("with_fedjax", "fedjax", WIDE),
    "byzfl": Script("with_byzfl", "byzfl", ROBUST),
    "opacus-ghost": Script("with_loops", "opacus", PRIVATE, ("--kind", "ghost")),
    "opacus-hooks": Script("with_loops", "opacus", ("W4",), ("--kind", "hooks")),
}
OURS = tuple(name for name, c in CONTESTANTS.items() if isinstance(c, Fedexp))
NO_PEERS = (*OURS, "plain-loop")
assert {c.environment for c in CONTESTANTS.values() if isinstance(c, Script)} == {None, *PEERS}


def with_overrides(more: Sequence[str]) -> dict[str, Contestant]:
    """Everybody, fedexp with more overrides, such as `training.precision=bfloat16`."""
    return {
        name: replace(who, more=tuple(more)) if isinstance(who, Fedexp) else who
        for name, who in CONTESTANTS.items()
    }
