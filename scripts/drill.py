"""A fault drill: runs of ten kinds are killed at random moments and go on; is anything lost?

    python scripts/drill.py FOLDER                          200 kills, at most 30 minutes
    python scripts/drill.py FOLDER --kills 20 --minutes 3   a shorter one; the same folder goes on
    python scripts/drill.py FOLDER --only pool --only sweep

Of every kind one run is left alone. The others get SIGKILL (the process alone, or all of its
group), SIGTERM or SIGINT at a moment drawn from the seed and the number of the kill, some of them
twice, and are resumed (a sweep: started again). Afterwards figures, models, checkpoints, recorded
updates and findings must equal those of the run that was left alone, bit for bit, with no file more
or less; and no process and no segment of shared memory may be left of what was killed. Then, once
for every kind: a disk that fills up on the way (needs the right to mount one), and two processes at
the same thing at once.

What was tried is a line of FOLDER/drill.jsonl; started again, the drill goes on with the next. Exit
code 1 if anything was lost. Needs Linux.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from fedexp.commands.cli import main as fedexp
from fedexp.config.origin import code_of_fedexp, kernels

RUN = ("rounds=4", "training.epochs=1", "plots=false", "quiet=true", "backend=in_process")
FIT = ("detect", "fit", "UPDATES", "--out", "run.st")  # of the reference run that recorded some
NOISE = ("privacy.noise_multiplier=1", "privacy.delta=1e-4")
# About the machine, the time or the command, and pictures and tables of what is compared itself.
NOT_COMPARED = ("timing.jsonl", "fedexp.log", "report.md", "summary.json", "findings.json")
NOT_COMPARED += ("entry.json", "summary.csv", "origin.json")
MAY_BE_MISSING = (".lock", ".report.json", "error.txt")
OF_A_SUMMARY = ("status", "rounds", "final", "mean_last_5", "totals", "privacy", "leakage")
SIGNALS = {"SIGKILL": 3, "SIGTERM": 1, "SIGINT": 1}  # how often one is drawn
ENDED = {0, 130, 143, -signal.SIGTERM, -signal.SIGINT, -signal.SIGKILL}
PATIENCE = 120.0  # seconds for anything to end


@dataclass(frozen=True)
class Kind:
    """A kind of work: what starts it in the current folder, and what goes on with it."""

    start: tuple[str, ...]
    again: tuple[str, ...]
    begun: str = "run/config.yaml"  # the file that is there once `again` can go on


def _run(*overrides: str) -> Kind:
    return Kind(("run", *RUN, *overrides, "hydra.run.dir=run"), ("resume", "run"))


def _of_itself(*command: str) -> Kind:
    return Kind(command, command, begun="")


KINDS = {
    "plain": _run(),
    "pool": _run("backend=process_pool", "backend.workers=2"),
    "dp_sgd": _run("privacy=dp_sgd", *NOISE),
    "client_dp": _run("privacy=client_dp", *NOISE, "sampler=poisson", "cohort_size=5"),
    "secure": _run("channel=secure_aggregation"),
    "detector": _run("detector=norm", "detector.warm_up_rounds=2"),
    "states": _run("algorithm=scaffold", "cohort_size=5"),
    "updates": _run("record_updates=true"),
    "leakage": _run("leakage=analytic", "leakage.analytic.exposure.examples=2"),
    "sweep": _of_itself("run", "-m", "seed=0,1", *RUN, "hydra.sweep.dir=run"),
    "detect": Kind(FIT, (*FIT, "--force"), begun="run.st"),
}


class Lost(Exception):
    """What must not happen; says what."""


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("folder", type=Path, help="for all that is made; the same goes on")
    options.add_argument("--kills", type=int, default=200)
    options.add_argument("--minutes", type=float, default=30.0)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--only", action="append", choices=KINDS, help="of these kinds")
    given = options.parse_args()
    folder, kinds = given.folder.absolute(), given.only or list(KINDS)
    deadline = time.monotonic() + 60 * given.minutes
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells ignore it in the background
    folder.mkdir(parents=True, exist_ok=True)
    _refuse_other_code(folder)
    _import_everything()
    seconds = {kind: _reference(folder, kind) for kind in dict.fromkeys(["updates", *kinds])}

    trials: list[tuple[str, Callable[[Path], str]]] = []
    for number in range(given.kills):
        kind = kinds[number % len(kinds)]
        draw = random.Random(f"{given.seed}/{number}")
        trials.append(
            (
                f"kill {number:04d} {kind}",
                lambda at, k=kind, d=draw: _killed(at, k, d, seconds[k]),
            )
        )
    trials += [(f"full disk {kind}", lambda at, k=kind: _full_disk(at, k)) for kind in kinds]
    trials += [(f"two at once {kind}", lambda at, k=kind: _two_at_once(at, k)) for kind in kinds]

    log = folder / "drill.jsonl"
    known = log.read_text().splitlines() if log.exists() else []
    done = {entry["trial"]: entry for entry in map(json.loads, known)}
    for name, trial in trials:
        if name in done:
            continue
        if time.monotonic() > deadline:
            print(f"time is over; go on with the same command: {folder}")
            break
        done[name] = entry = _tried(folder, name, trial)
        with log.open("a") as file:
            file.write(json.dumps(entry) + "\n")
        print(f"{name}: {entry['verdict']}", flush=True)
    verdicts = Counter(_in_short(entry) for entry in done.values())
    print("; ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common()))
    return int(any(entry["verdict"].startswith("LOST") for entry in done.values()))


def _tried(folder: Path, name: str, trial: Callable[[Path], str]) -> dict[str, str]:
    """The outcome of a trial in a folder of its own, which stays if something was lost."""
    place = folder / "trials" / name.replace(" ", "-")
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    segments = _segments()
    try:
        verdict = trial(place)
        if left := _segments() - segments:
            raise Lost(f"shared memory is left: {', '.join(sorted(left))}")
    except Lost as loss:
        return {"trial": name, "verdict": f"LOST: {loss}"}
    shutil.rmtree(place)
    return {"trial": name, "verdict": verdict}


def _in_short(entry: dict[str, str]) -> str:
    return entry["verdict"].partition(":")[0]


def _killed(place: Path, kind: str, draw: random.Random, seconds: float) -> str:
    """Kill a piece of work once or twice, go on with it, and compare."""
    said = []
    for start in range(1 + (draw.random() < 0.3)):
        begun = KINDS[kind].begun and (place / KINDS[kind].begun).exists()
        child = Child(place, KINDS[kind].again if start and begun else KINDS[kind].start)
        name = draw.choices(list(SIGNALS), list(SIGNALS.values()))[0]
        alone = name == "SIGTERM" or (name == "SIGKILL" and draw.random() < 0.5)
        moment = draw.random() * 1.05 * seconds
        child.wait(moment)
        child.send(getattr(signal, name), alone)
        code = child.end()
        if code not in ENDED:
            raise Lost(f"{name} after {moment:.2f} s ended with {code}: {child.last_line()}")
        child.refuse_traceback()
        said.append(f"{name}{' alone' if alone else ''} after {moment:.2f} s")
    _go_on(place, kind)
    _compare(place, kind)
    return f"same bits: {', '.join(said)}"


def _full_disk(place: Path, kind: str) -> str:
    """A disk that fills up at a fifth, two fifths, ... of what the work needs; then has room."""
    needed = sum(p.stat().st_size for p in _files(_reference_of(place, kind)))
    tries = 4
    with _disk(place / "disk") as mounted:
        if not mounted:
            return "not tried: may not mount a disk here"
        for part in range(1, tries + 1):
            work = place / "disk" / str(part)
            _resize(place / "disk", part * needed // (tries + 1) + 40_000)
            work.mkdir()
            (place / "reference").mkdir(exist_ok=True)
            begun = Child(work, KINDS[kind].start)
            code = begun.end()
            begun.refuse_traceback()
            if code not in (0, 1, 2):
                raise Lost(f"ended with {code} on a full disk: {begun.last_line()}")
            _resize(place / "disk", 4 * needed + 10_000_000)
            _go_on(work, kind)
            _compare(work, kind, of=place)
            shutil.rmtree(work)
    return "same bits: after full disks"


def _two_at_once(place: Path, kind: str) -> str:
    """Two processes start the same, and two go on with it: one may be refused, nothing is mixed."""
    for command in (KINDS[kind].start, KINDS[kind].again):
        both = [Child(place, command), Child(place, command)]
        for child in both:
            code = child.end()
            child.refuse_traceback()
            refused = code == 2 and any(
                words in child.said()
                for words in ("another process", "holds a run already", "is there already")
            )
            if code != 0 and not refused:
                raise Lost(f"two at once: one ended with {code}: {child.last_line()}")
    _go_on(place, kind)
    _compare(place, kind)
    return "same bits: two at once"


def _go_on(place: Path, kind: str) -> None:
    begun = KINDS[kind].begun and (place / KINDS[kind].begun).exists()
    child = Child(place, KINDS[kind].again if begun else KINDS[kind].start)
    if code := child.end():
        raise Lost(f"does not go on: it ended with {code}: {child.last_line()}")
    child.refuse_traceback()


class Child:
    """`fedexp ARGUMENTS` in a copy of this process, which has imported everything."""

    def __init__(self, place: Path, arguments: Sequence[str]) -> None:
        self._output = place / f"said-{len(list(place.glob('said-*')))}.txt"
        self._output.touch()
        made = (p / "reference" / "updates" / "run" / "updates" for p in place.parents)
        updates = next((str(path) for path in made if path.is_dir()), "")
        self._started = time.monotonic()
        self.pid = os.fork()
        if not self.pid:
            os.setsid()
            os.chdir(place)
            output = os.open(self._output, os.O_WRONLY)
            os.dup2(output, 1)
            os.dup2(output, 2)
            sys.argv = ["fedexp"]
            code = 1
            try:
                code = fedexp([updates if a == "UPDATES" else a for a in arguments])
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)

    def wait(self, seconds: float) -> None:
        """Until so long after the start, or to the end of the process."""
        while time.monotonic() - self._started < seconds and not self._is_over():
            time.sleep(0.002)

    def send(self, number: int, alone: bool) -> None:
        """A signal to the process, or to all of its group."""
        try:
            os.kill(self.pid if alone else -self.pid, number)
        except ProcessLookupError:  # over already
            return

    def end(self) -> int:
        """The exit code (negative: the signal), once nobody of its session is left."""
        deadline = time.monotonic() + PATIENCE
        while not self._is_over():
            if time.monotonic() > deadline:
                os.kill(-self.pid, signal.SIGKILL)
                raise Lost(f"hangs: {self.last_line()}")
            time.sleep(0.005)
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        deadline = time.monotonic() + 10
        while orphans := _session(self.pid):
            if time.monotonic() > deadline:
                for pid in orphans:
                    os.kill(pid, signal.SIGKILL)
                raise Lost(f"left {len(orphans)} processes behind")
            time.sleep(0.02)
        return code

    def _is_over(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def said(self) -> str:
        """What it has printed."""
        return self._output.read_text(errors="replace")

    def last_line(self) -> str:
        """The last thing that it has printed."""
        return next(reversed(self.said().splitlines()), "nothing was said")

    def refuse_traceback(self) -> None:
        """Raise Lost if it has printed one."""
        if "Traceback" in self.said():
            raise Lost(f"a traceback: {self.last_line()}")


def _session(number: int) -> list[int]:
    """The living processes of a session."""
    alive = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(session) == number and state != "Z":
            alive.append(int(stat.parent.name))
    return alive


def _segments() -> set[str]:
    """Segments of shared memory that torch made in a process that is not there any more."""
    names = (path.name for path in Path("/dev/shm").glob("torch_*"))
    return {n for n in names if not Path(f"/proc/{n.split('_')[1]}").exists()}


def _reference(folder: Path, kind: str) -> float:
    """Make the run that is left alone, where it is missing; the seconds that one takes."""
    place = folder / "reference" / kind
    note = place / "seconds.txt"
    if not note.exists():
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        started = time.monotonic()
        child = Child(place, KINDS[kind].start)
        if code := child.end():
            raise SystemExit(f"{kind} ended with {code}: {child.last_line()}")
        note.write_text(str(time.monotonic() - started))
        print(f"{kind}: one run takes {note.read_text():.4} s", flush=True)
    return float(note.read_text())


def _import_everything() -> None:
    """Carry out a run here: copies of this process then start at once."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        sys.argv = ["fedexp"]
        try:
            fedexp(["run", *RUN, "rounds=1", "hydra.run.dir=run", "leakage=analytic"])
        finally:
            os.chdir(before)


def _refuse_other_code(folder: Path) -> None:
    made_by, note = f"{code_of_fedexp()} {kernels()}", folder / "code.txt"
    if note.exists() and note.read_text() != made_by:
        raise SystemExit(f"{folder} was made by other code or on another machine; take another")
    note.write_text(made_by)


def _reference_of(place: Path, kind: str) -> Path:
    return place.parents[1] / "reference" / kind


def _files(folder: Path) -> list[Path]:
    """What the work has left, and not the drill."""
    ours = ("seconds.txt", "disk")
    return [
        path
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith("said-") and path.name not in ours
    ]


def _compare(place: Path, kind: str, of: Path | None = None) -> None:
    """Raise Lost unless `place` holds what the run that was left alone has left."""
    reference = _reference_of(of or place, kind)
    ours = {path.relative_to(place).as_posix(): path for path in _files(place)}
    theirs = {path.relative_to(reference).as_posix(): path for path in _files(reference)}
    apart = {name for name in {*ours} ^ {*theirs} if Path(name).name not in MAY_BE_MISSING}
    # Beside a file of the user's, and a sweep's tables, nobody knows who else writes.
    if KINDS[kind].begun != Kind.begun:
        apart -= {name for name in apart if name.endswith(".tmp")}
    if apart:
        raise Lost(f"more or fewer files: {', '.join(sorted(apart))}")
    for name in {*ours} & {*theirs}:
        if Path(name).name == "summary.json":
            a, b = (json.loads(path.read_text()) for path in (ours[name], theirs[name]))
            if wrong := [key for key in OF_A_SUMMARY if a.get(key) != b.get(key)]:
                raise Lost(f"{name} has another {', '.join(wrong)}")
        elif _is_compared(name) and ours[name].read_bytes() != theirs[name].read_bytes():
            raise Lost(f"{name} is another")


def _is_compared(name: str) -> bool:
    path = Path(name)
    hidden = any(part.startswith(".") for part in path.parts)
    tables = path.suffix in (".png", ".md", ".html") or path.name in ("table.csv", "multirun.yaml")
    return not (hidden or tables or path.name in NOT_COMPARED)


@contextmanager
def _disk(at: Path) -> Iterator[bool]:
    """A disk in memory, mounted at a new folder; False where that is not allowed."""
    at.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "fedexp-drill", str(at)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        yield False
        return
    try:
        yield True
    finally:
        subprocess.run(["umount", "-l", str(at)], check=True)


def _resize(disk: Path, size: int) -> None:
    options = f"remount,size={max(size, 65_536)}"
    subprocess.run(["mount", "-o", options, str(disk)], check=True, capture_output=True)


if __name__ == "__main__":
    sys.exit(main())
