"""How far a run or a sweep is, read from its files; whoever is at it is not disturbed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, final

from hydra.errors import HydraException

from fedexp.commands.sweep_jobs import number_of
from fedexp.core.checks import InputError, refuse_no_folder
from fedexp.core.documents import read_json_object, read_yaml_mapping
from fedexp.core.files import somebody_is_at
from fedexp.core.text import cleaned, duration, printable
from fedexp.run_folder.shapes import SUMMARY, checked

ENDED = ("complete", "failed", "interrupted")
GONE = "gone"  # it says that it is running, and nobody is at it
IDLE = 10.0  # seconds in which nobody starts a next job, after which a sweep has ended
SHOWN = 4  # jobs named at once


@final
@dataclass(frozen=True)
class Progress:
    """How far something is."""

    kind: str  # run, or sweep
    status: str  # running, complete, failed, interrupted, gone
    done: float  # rounds, or jobs with what running ones have of theirs
    total: int | None  # None: not known
    failed: int  # jobs; of a run 0 or 1
    seconds_left: float | None  # about; None where nothing tells
    text: str  # a line

    @property
    def is_over(self) -> bool:
        """Whether there is nothing to wait for."""
        return self.status != "running"


class Watched(Protocol):
    """Something that goes on."""

    def look(self) -> Progress:
        """How far it is now."""


def watched(folder: Path) -> Watched:
    """What lies in a folder.

    Raises:
        InputError: neither a run nor a sweep does.
    """
    refuse_no_folder(folder, "RUN_OR_SWEEP")
    if (folder / "multirun.yaml").is_file():
        return Sweep(folder)
    if any((folder / name).is_file() for name in ("summary.json", "config.yaml")):
        return Run(folder)
    if any(folder.glob("*/summary.json")):
        return Sweep(folder)
    raise InputError("holds neither a run nor a sweep", "RUN_OR_SWEEP", folder)


@final
@dataclass
class Run:
    """A run's folder. Its summary is read again when it has changed."""

    folder: Path
    _read: tuple[int, Mapping[str, Any]] = field(default=(0, {}))

    def look(self) -> Progress:
        """By summary.json, which is written every round."""
        said = self._summary()
        rounds, planned = int(said.get("rounds") or 0), said.get("rounds_planned")
        status = str(said.get("status", "running"))
        if status not in ENDED:
            # Whoever runs holds the folder's lock; to ask for it disturbs nobody who has it.
            status = "running" if not said or somebody_is_at(self.folder) else GONE
        left = None
        if status == "running" and rounds and planned and said.get("seconds"):
            left = said["seconds"] / rounds * (planned - rounds)
        measured = ((said.get("final") or {}).get("validation") or {}).get("accuracy")
        pieces = [
            f"round {rounds} of {planned or '?'}",
            "" if measured is None else f"validation accuracy {measured:.3f}",
            "" if left is None else f"about {duration(left)} left",
            "" if status == "running" else _in_words(status, said),
        ]
        return Progress(
            kind="run",
            status=status,
            done=rounds,
            total=planned,
            failed=int(status in ("failed", GONE)),
            seconds_left=left,
            text=", ".join(piece for piece in pieces if piece),
        )

    @property
    def seconds(self) -> float:
        """That its rounds have taken so far."""
        return float(self._summary().get("seconds") or 0.0)

    def _summary(self) -> Mapping[str, Any]:
        """Empty before there is one."""
        path = self.folder / "summary.json"
        try:
            changed = path.stat().st_mtime_ns
            if changed != self._read[0]:
                said = checked(read_json_object(path), SUMMARY, path)
                self._read = changed, cleaned(said)
        except FileNotFoundError:
            return {}
        return self._read[1]


def _in_words(status: str, said: Mapping[str, Any]) -> str:
    if status == GONE:
        return "its process is gone; fedexp resume goes on"
    return f"failed: {said['error']}" if status == "failed" and said.get("error") else status


@final
@dataclass
class Sweep:
    """The folder of a sweep, its jobs right below it."""

    folder: Path
    _jobs: dict[str, Run] = field(default_factory=dict)
    _changed: float = field(default_factory=time.monotonic)
    _before: str = ""

    def look(self) -> Progress:
        """By its jobs, and by multirun.yaml, which says what they are."""
        for path in sorted(self.folder.glob("*/summary.json")):
            self._jobs.setdefault(path.parent.name, Run(path.parent))
        now = {name: run.look() for name, run in self._jobs.items()}
        total = self._total()
        over = [name for name, of in now.items() if of.is_over]
        running = {name: of for name, of in now.items() if not of.is_over}
        failed = sum(of.failed for of in now.values())
        done = len(over) + sum(of.done / of.total for of in running.values() if of.total)
        left = self._left(over, running, total, done)
        shown = "; ".join(
            f"{printable(name)} {of.done:.0f}/{of.total or '?'}"
            for name, of in list(running.items())[:SHOWN]
        )
        at = min(len(now), total or len(now))
        pieces = [
            f"job {at} of {total or '?'}",
            f"{len(over) - failed} done",
            f"{failed} failed" if failed else "",
            "" if left is None else f"about {duration(left)} left",
        ]
        text = ", ".join(piece for piece in pieces if piece) + (f": {shown}" if shown else "")
        status = self._status(len(over), total, bool(running), failed, text)
        return Progress("sweep", status, done, total, failed, left, text)

    def _status(self, over: int, total: int | None, running: bool, failed: int, text: str) -> str:
        if text != self._before:
            self._before, self._changed = text, time.monotonic()
        if over == total:
            return "failed" if failed else "complete"
        if running or time.monotonic() - self._changed < IDLE:
            return "running"
        return GONE if total is not None or failed else "complete"

    def _left(
        self, over: list[str], running: Mapping[str, Progress], total: int | None, done: float
    ) -> float | None:
        """Of the jobs to come as of those that are over, as many at once as run now."""
        known = [seconds for name in over if (seconds := self._jobs[name].seconds)]
        if not known or total is None or not running:
            return None
        return sum(known) / len(known) * (total - done) / len(running)

    def _total(self) -> int | None:
        try:
            hydra = read_yaml_mapping(self.folder / "multirun.yaml")["hydra"]
            said = [str(override) for override in hydra["overrides"]["task"]]
            return number_of(hydra["sweeper"], said)
        except (FileNotFoundError, InputError, HydraException, LookupError, TypeError):
            return None  # it is not there, or nobody knows what it says


def looks(what: Watched, every: float) -> Iterator[Progress]:
    """How far it is, every so many seconds, until it is over."""
    while True:
        progress = what.look()
        yield progress
        if progress.is_over:
            return
        time.sleep(every)
