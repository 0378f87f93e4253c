"""One contestant's run as a process of its own: its rounds, its whole seconds, its peak memory."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIMIT = 900.0  # seconds; whoever takes longer has failed
LOOK_EVERY = 0.5  # seconds between two looks at the memory


@dataclass(frozen=True)
class Outcome:
    """What a run was."""

    rounds: tuple[float, ...]  # seconds of each round, the first one too
    process: float  # seconds from start to end
    megabytes: float | None  # the largest that was seen; None: the system does not tell
    accuracy: float | None  # None: it did not come to its end
    versions: Mapping[str, str]
    failure: str | None = None

    @property
    def counted(self) -> tuple[float, ...]:
        """The rounds without the first, in which kernels are chosen and workers start."""
        return self.rounds[1:]


def run(command: Sequence[str], env: Mapping[str, str], folder: Path) -> Outcome:
    """Start a contestant, wait for its end, read what it said."""
    started = time.perf_counter()
    with (
        (folder / "stdout.txt").open("w+") as out,
        (folder / "stderr.txt").open("w+") as err,
        # A group of its own: what it leaves behind can be ended with it.
        subprocess.Popen(
            command, env=dict(env), stdout=out, stderr=err, start_new_session=True
        ) as process,
        Memory(process.pid) as memory,
    ):
        code = _wait(process)
        seconds = time.perf_counter() - started
    lines = _json_lines((folder / "stdout.txt").read_text())
    last = next((line for line in lines if "accuracy" in line), {})
    failure = None
    if code or not last:
        said = (folder / "stderr.txt").read_text().strip().splitlines() or ["nothing"]
        failure = f"exit {code}: {said[-1][:200]} ({folder / 'stderr.txt'})"
    return Outcome(
        rounds=tuple(line["seconds"] for line in lines if "seconds" in line),
        process=seconds,
        megabytes=memory.peak,
        accuracy=last.get("accuracy"),
        versions=last.get("versions", {}),
        failure=failure,
    )


def _wait(process: subprocess.Popen[bytes]) -> int:
    try:
        return process.wait(LIMIT)
    except subprocess.TimeoutExpired:
        return -signal.SIGKILL
    finally:
        # Also when somebody ends the comparison: what a contestant started must not outlive it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _json_lines(text: str) -> list[dict[str, Any]]:
    """A contestant's own lines among whatever its libraries print."""
    found = []
    for line in text.splitlines():
        try:
            said = json.loads(line)
        except ValueError:
            continue
        if isinstance(said, dict):
            found.append(said)
    return found


class Memory:
    """Looks at a process and all that it started; `peak` megabytes (PSS) once it is closed.

    PSS counts a page that k processes share as 1/k of a page in each (proc(5), smaps_rollup), so
    the sum counts it once.
    """

    def __init__(self, pid: int, every: float = LOOK_EVERY) -> None:
        self._pid, self._every, self._over = pid, every, threading.Event()
        self._kilobytes = 0
        self._thread = threading.Thread(target=self._watch, daemon=True)

    @property
    def peak(self) -> float | None:
        """None where there is no /proc."""
        return self._kilobytes / 1e3 if self._kilobytes else None

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(self._every):
            now = sum(map(_pss, family(self._pid)))
            self._kilobytes = max(self._kilobytes, now)


def family(pid: int) -> list[int]:
    """The process and its descendants."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name in brackets may hold anything; the parent is the second word after it.
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError, ValueError):
            continue  # it has just ended
        children.setdefault(parent, []).append(int(stat.parent.name))
    found, waiting = [], [pid]
    while waiting:
        found.append(waiting.pop())
        waiting += children.get(found[-1], [])
    return found


def _pss(pid: int) -> int:
    """Kilobytes."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0  # it has just ended
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
