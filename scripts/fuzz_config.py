"""Every key of every choice, with hostile values: refused in a line, or a sensible run.

    python scripts/fuzz_config.py                       all of it: some 13,000 cases, an hour or two
    python scripts/fuzz_config.py --minutes 10          as far as it gets; the next call goes on
    python scripts/fuzz_config.py --only training.lr    cases whose override holds a word, again
    python scripts/fuzz_config.py --list                what is to be tried

Each case is a run of one small round in a process of its own, forked from one that has imported
everything. It passes if it is refused with exit code 2 in one line that names the key, or if it
runs to the end with finite figures on a value of the key's own kind. It fails with a traceback,
without an end after 60 seconds, with words that name no key, or with nonsense that was accepted.
What was tried is kept in `fuzz_config.jsonl`, one line a case, and not tried again; the exit code
is 1 if any case failed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import multiprocessing
import os
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import chdir, suppress
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from tqdm import tqdm

from fedexp.commands import execution, run, studies  # noqa: F401 - for the forks, which share it
from fedexp.commands.cli import run_command
from fedexp.config.folders import conf_folder
from fedexp.config.hydra_errors import COMPLAINTS
from fedexp.config.parts import BUILDERS_OWN
from tests.support import own_files, remembered_configs

VALUES = (
    *("null", "true", "abc", "''", "-1", "0", "0.5", "nan", "inf", "1e300", "1e-300"),
    *("99999999999999999999", "[]", "[1,a]", "{a: 1}"),
)
"""Fifteen; of a number's kinds the ends, of the other kinds one each."""

SECONDS, MEMORY = 60, 12 * 2**30
WITHOUT = ("debug", "experiment", "hydra", "local", "paths", "scenario")  # choices of choices
SMALL = (
    *("rounds=1", "n_clients=6", "train_examples=240", "plots=false", "quiet=true"),
    *("training=sgd", "training.epochs=null", "training.steps=1", "backend=in_process"),
    *("model.hidden=[8]", "hydra.run.dir=run"),
)
AUDITED = ("privacy=client_dp", "privacy.noise_multiplier=1", "privacy.delta=1e-3")
FOLDERS = ("store",)  # which may be called anything
OWN = {
    name: (f"dataset.path=../{file}", "~train_examples", "n_clients=3")
    for name, file in (("arrays", "own.npz"), ("images", "images"), ("table", "own.csv"))
}
SITES = ("dataset=arrays", *OWN["arrays"][:2], "~n_clients")
NEEDS = {
    "aggregator/bulyan": ("n_clients=8",),
    "early_stopping/patience": ("early_stopping.patience=1",),
    "leakage": ("~train_examples",),
    **{
        f"leakage/{name}": (
            f"leakage.{name}.exposure.examples=1",
            f"leakage.{name}.attack.iterations=2",
        )
        for name in ("dlg", "geiping", "idlg")
    },
    "dataset/arrays": OWN["arrays"],
    "dataset/breast_cancer": ("train_examples=100",),
    "dataset/images": OWN["images"],
    "dataset/table": (*OWN["table"], "dataset.label=label"),
    "leakage/audit_many_runs": AUDITED,
    "leakage/audit": AUDITED,
    "leakage/analytic": ("leakage.analytic.exposure.examples=1",),
    "leakage/lira": ("leakage.lira.shadows=4",),
    "leakage/model_inversion": ("leakage.model_inversion.steps=2",),
    "model": ("~model.hidden",),
    "partition/site": SITES,
    "partition/within_sites": SITES,
    "privacy/client_dp": ("privacy.noise_multiplier=1", "privacy.delta=1e-2"),
    "privacy/dp_sgd": ("privacy.noise_multiplier=1",),
    "privacy/local_gaussian": ("privacy.noise_multiplier=1",),
    "sampler/poisson": ("sampler.cohort_size=3",),
    "training": ("~training.steps", "~training.epochs"),
}
"""What a choice cannot do without in a run this small."""


def cases() -> Iterator[tuple[str, tuple[str, ...]]]:
    """(the override under trial, the overrides that it comes after)."""
    for key in sorted(_leaves(_composed(SMALL))):
        if "." not in key and key not in ("plots", "quiet"):
            yield from ((f"{key}={value}", SMALL) for value in VALUES)
    drawn = tuple(override for override in SMALL if override != "plots=false")
    for key in sorted(_leaves(_composed(drawn)["plots"], "plots")):
        yield from ((f"{key}={value}", drawn) for value in VALUES)
    seen = set()
    for group, choice in _choices():
        base = _base(group, choice)
        try:
            config = _composed(base)
        except COMPLAINTS as error:
            print(f"left out: {group}={choice}: {str(error).splitlines()[0]}", file=sys.stderr)
            continue
        node = OmegaConf.select(config, group.replace("/", "."))
        target = str(OmegaConf.select(node, "_target_", default=choice)) if node else choice
        place = group.replace("/", ".")
        for key in (*_leaves(node, place), *_parts(node, place)):
            # What the builder reads of a group is read alike for all of its parts: once.
            own = key.partition(".")[2].partition(".")[0] in BUILDERS_OWN.get(group, ())
            whose = (group if own else target, key)
            if whose not in seen:
                seen.add(whose)
                yield from ((f"{key}={value}", base) for value in VALUES)


def _choices() -> list[tuple[str, str]]:
    """Group and choice; studies, which take longest, last."""
    conf = conf_folder()
    paths = [path.relative_to(conf) for path in conf.rglob("*.yaml")]
    found = [(p.parent.as_posix(), p.stem) for p in paths if len(p.parts) > 1]
    found = [(group, name) for group, name in found if group.split("/")[0] not in WITHOUT]
    return sorted(found, key=lambda choice: (choice[0] == "leakage", choice))


def _base(group: str, choice: str) -> tuple[str, ...]:
    top = group.split("/")[0]
    needed = (*NEEDS.get(top, ()), *NEEDS.get(f"{group}/{choice}", ()))
    dropped = {override.lstrip("~") for override in needed if override.startswith("~")}
    more = [override for override in needed if not override.startswith("~")]
    replaced = {top, *dropped, *(override.partition("=")[0] for override in more)}
    kept = [override for override in SMALL if override.partition("=")[0] not in replaced]
    small_model = () if top != "model" or choice != "mlp" else ("model.hidden=[8]",)
    return (*kept, f"{group}={choice}", *small_model, *more)


def _composed(overrides: tuple[str, ...]) -> Any:
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return compose("config", overrides=list(overrides))


def _leaves(node: Any, prefix: str = "") -> dict[str, Any]:
    if not OmegaConf.is_dict(node):
        return {prefix: node}
    found: dict[str, Any] = {}
    for key in node:
        name = f"{prefix}.{key}" if prefix else str(key)
        if OmegaConf.is_missing(node, key) or OmegaConf.is_interpolation(node, key):
            found[name] = None
        else:
            found |= _leaves(node[key], name)
    return found


def _parts(node: Any, prefix: str) -> dict[str, Any]:
    """What has keys of its own inside a choice: parts of a part, and settings by name."""
    found: dict[str, Any] = {}
    for key in node or ():
        inner = not OmegaConf.is_missing(node, key) and not OmegaConf.is_interpolation(node, key)
        if inner and OmegaConf.is_dict(node[key]):
            name = f"{prefix}.{key}"
            found |= {name: node[key], **_parts(node[key], name)}
    return found


def tried(override: str, base: tuple[str, ...]) -> dict[str, Any]:
    """One case in a process of its own: its exit code, what it said, how long, and the verdict."""
    with suppress(*COMPLAINTS):
        _composed(base)  # of parts as they come, which the fork then need not read and merge
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=".") as folder:  # beside the data of one's own
        child = os.fork()
        if child == 0:
            _in_the_child(folder, [*base, override])
        code = _waited_for(child, started + SECONDS)
        said = (Path(folder) / "err").read_text(errors="replace").strip()
        summary = _summary(Path(folder) / "run" / "summary.json")
    outcome = {"case": override, "base": " ".join(base), "code": code, "said": said[-600:]}
    seconds = round(time.monotonic() - started, 1)
    return {**outcome, "seconds": seconds, "wrong": _wrong(override, base, code, said, summary)}


def _tried_before(case: tuple[str, tuple[str, ...], float]) -> dict[str, Any] | None:
    override, base, deadline = case
    return tried(override, base) if time.monotonic() < deadline else None


def _in_the_child(folder: str, overrides: list[str]) -> None:
    os.setsid()  # so that what it starts ends with it
    os.chdir(folder)
    for name, descriptor in (("out", 1), ("err", 2)):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT), descriptor)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    code = 70
    try:
        sys.argv = ["fedexp"]
        code = run_command(["run", *overrides])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _waited_for(child: int, deadline: float) -> int:
    """The exit code; -9 of what had to be ended."""
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return -9


def _summary(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError):
        return {}


def _wrong(
    override: str, base: tuple[str, ...], code: int, said: str, summary: dict[str, Any]
) -> str:
    """What is wrong with how a case ended; "" for nothing."""
    key, _, value = override.partition("=")
    if code == -9:
        return f"no end after {SECONDS} s"
    if code not in (0, 2) or "Traceback" in said:
        last = said.splitlines()[-1:] or [""]
        return f"exit code {code}: {last[0]}"
    if code == 2:
        *before, last = said.splitlines() or [""]
        if not last.startswith("fedexp: "):
            return "not one line"
        if before and all(line.startswith("round ") for line in before):
            return ""  # it was tried, and each round said what became of it
        words = key.split(".")
        named = any(re.search(rf"\b{re.escape(word)}\b", said) for word in (key, *words[-2:]))
        named |= last.startswith(f"fedexp: {words[0]}.")  # another of the group, which it goes with
        missing = "could not be downloaded" in said or "put it there by hand" in said
        return "" if (named and not before) or missing else "names no key in one line"
    if summary.get("status") != "complete":
        return f"exit code 0, status {summary.get('status')}"
    if said.count("Error") or "RuntimeWarning" in said:
        return "a library's words on the terminal"
    if value in ("nan", "inf") and key not in FOLDERS:
        return f"{value} was accepted"
    losses = [part.get("loss") for part in summary.get("final", {}).values()]
    if not all(isinstance(loss, float) and math.isfinite(loss) for loss in losses if loss):
        return "its loss is not finite"
    default = OmegaConf.select(_composed(base), key)
    if _kind(value) not in _kinds_like(default) and key not in FOLDERS:
        return f"{value} was accepted where the default is {default!r}"
    return ""


def _kind(value: str) -> str:
    if re.fullmatch(r"[-+0-9.e]+", value):
        return "number"
    first = value[:1]
    return {"[": "list", "{": "mapping"}.get(first, value if value in ("null", "true") else "word")


def _kinds_like(default: Any) -> set[str]:
    """Kinds of value that may stand where this one does; unknown is anything."""
    if isinstance(default, bool):
        return {"true", "word", "mapping"}  # record_updates takes words
    if isinstance(default, int | float):
        return {"number", "null"}
    if isinstance(default, str):
        return {"word", "null", "true"}
    if OmegaConf.is_dict(default):
        return {"mapping", "null"}
    if OmegaConf.is_list(default):
        return {"list", "null"}
    return {"number", "null", "word", "list", "true", "mapping"}


def main() -> int:
    """The script; its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument("--only", default="")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("fuzz_config.jsonl"))
    parser.add_argument("--list", action="store_true")
    given = parser.parse_args()
    remembered_configs.install()
    everything = [case for case in cases() if given.only in case[0]]
    if given.list:
        print("\n".join(override for override, _ in everything))
        return 0
    lines = given.out.read_text().splitlines() if given.out.exists() else []
    done = {(line["case"], line["base"]): line for line in map(json.loads, lines)}
    todo = [c for c in everything if given.only or (c[0], " ".join(c[1])) not in done]
    # Mixed, so that as far as it gets it has tried some of everything.
    todo.sort(key=lambda case: hashlib.sha256(repr(case).encode()).digest())
    deadline = time.monotonic() + 60 * given.minutes
    fork = multiprocessing.get_context("fork")
    with (
        given.out.open("a") as out,
        tempfile.TemporaryDirectory() as folder,
        chdir(folder),
        ProcessPoolExecutor(given.workers, fork) as pool,
    ):
        for make in (own_files.make_arrays, own_files.make_images, own_files.make_table):
            make(Path(folder))
        run_command(["run", *SMALL])  # what this imports and loads, the forks need not
        outcomes = pool.map(_tried_before, [(*case, deadline) for case in todo])
        for outcome in tqdm(outcomes, total=len(todo), disable=None):
            if outcome is not None:
                out.write(json.dumps(outcome) + "\n")
                out.flush()
                done[outcome["case"], outcome["base"]] = outcome
    shown = [done[key] for case in everything if (key := (case[0], " ".join(case[1]))) in done]
    bad = [line for line in shown if line["wrong"]]
    for line in bad:
        print(f"{line['case']}: {line['wrong']}   [{line['base']}]")
    print(f"{len(shown)} of {len(everything)} cases tried, {len(bad)} failed")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
