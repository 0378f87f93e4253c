"""Carry out one run: build it, go through its rounds, record every one, report at the end."""

from __future__ import annotations

import errno
import importlib.metadata
import logging
import multiprocessing
import os
import platform
import resource
import shlex
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from fedexp import __version__
from fedexp.config.build import Built, build
from fedexp.core.checks import InputError
from fedexp.core.files import locked
from fedexp.core.flat import vector_of
from fedexp.core.interrupt import sigterm_as_interrupt
from fedexp.federation.rounds import finished, initial_state, run_rounds
from fedexp.observers.progress import progress_for
from fedexp.partition.describe import partition_document
from fedexp.run_folder.record import Recorder, write_summary

REDRAW_AFTER = 60.0  # seconds between drawings of the plots while a run goes on
PACKAGES = ("torch", "torchvision", "numpy", "scikit-learn", "hydra-core", "opacus", "medmnist")

log = logging.getLogger("fedexp")


def run(config: Mapping[str, Any], folder: Path, resume: bool) -> tuple[dict[str, Any], str]:
    """Run a resolved config in an existing folder; its summary, and a text about it to read.

    Args:
        config: the resolved config, plain dicts and lists.
        folder: where everything is written.
        resume: go on from the newest checkpoint in `folder`, if there is one.

    Raises:
        InputError: something the user gave cannot be used; nothing was written.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the rounds completed are saved.
    """
    # One thread: its bits are the same on every machine, and several processes share no core.
    torch.set_num_threads(1)
    built = build(config)
    with locked(folder), _logging_to(folder, quiet=config["quiet"]), sigterm_as_interrupt():
        try:
            return _run_locked(config, built, folder, resume)
        finally:
            built.experiment.backend.close()


def _run_locked(
    config: Mapping[str, Any], built: Built, folder: Path, resume: bool
) -> tuple[dict[str, Any], str]:
    exp = built.experiment
    recorder = Recorder(
        folder,
        config,
        built.model,
        built.task,
        built.dataset.test.y,
        built.dataset.class_names,
    )
    state = recorder.resume() if resume else None
    if state is None:
        recorder.begin(partition_document(built.partition, built.dataset.class_names, built.task))
        state = initial_state(exp, vector_of(built.model))
    about = {**_about(config, built), "privacy": exp.account.statement(state.ledger)}
    for remark in built.remarks:
        log.warning("%s", remark)
    progress = progress_for(exp.rounds, state.round, config["quiet"])
    status, error = "running", None
    go_on = f"fedexp resume {shlex.quote(str(folder))}"
    drawn, noted = time.monotonic(), set[str]()
    write_summary(folder, {"status": status, **about, **recorder.scores.document()})
    try:
        for state, record in run_rounds(exp, state):  # noqa: B020 - the state is carried on
            recorder.add(record)
            recorder.checkpoint(state, last=finished(exp, state))
            if any(row.scope == "privacy" for row in record.metrics):
                about["privacy"] = exp.account.statement(state.ledger)
            write_summary(folder, _summary(status, None, about, recorder))
            accuracy = recorder.scores.latest("validation", "accuracy")
            for note in record.notes:
                # Once on the terminal, every time in the log.
                log.log(
                    logging.DEBUG if note in noted else logging.WARNING,
                    "round %d: %s",
                    state.round,
                    note,
                )
                noted.add(note)
            log.debug("round %d, validation accuracy %.4f", state.round, accuracy)
            progress.round_done(state.round, accuracy)
            if config["plots"] and time.monotonic() - drawn > REDRAW_AFTER:
                _draw(folder, plots=True)
                drawn = time.monotonic()
        status = "complete"
        if state.round < exp.rounds:
            about["stopped"] = (
                f"round {state.round + 1} of {exp.rounds} could take epsilon above "
                f"max_epsilon={exp.account.max_epsilon:g}"
            )
            log.warning("stopped after round %d: %s", state.round, about["stopped"])
    except (KeyboardInterrupt, BrokenPipeError):  # the latter: nobody reads our lines any more
        status = "interrupted"
        progress.close()
        log.info("stopped after round %d; go on with: %s", recorder.scores.rounds, go_on)
        raise
    except OSError as problem:
        status, error = "failed", str(problem)
        if problem.errno in (errno.ENOSPC, errno.EDQUOT):
            raise InputError(
                f"the disk is full; free some space, then: {go_on}",
                "hydra.run.dir",
                folder,
            ) from problem
        raise
    except Exception as problem:
        status, error = "failed", str(problem).splitlines()[0] if str(problem) else repr(problem)
        log.debug("%s", traceback.format_exc())
        raise
    finally:
        progress.close()
        summary = _summary(status, error, about, recorder)
        _write_last_summary(folder, summary)
    study(config, folder)
    return summary, _draw(folder, plots=config["plots"])


def study(config: Mapping[str, Any], folder: Path) -> None:
    """Carry out the studies of leakage that the config asks for and the folder does not have."""
    if not config["leakage"]:
        return
    from fedexp.commands.leakage import study_run

    try:
        data_dir = config["paths"]["data_dir"]
        study_run(folder, config["leakage"], data_dir, config["trust"], False, log.info)
    except KeyboardInterrupt:
        log.info("the run is complete; go on with: fedexp resume %s", shlex.quote(str(folder)))
        raise


def _write_last_summary(folder: Path, summary: Mapping[str, Any]) -> None:
    try:
        write_summary(folder, summary)
    except OSError as problem:  # a full disk must not hide the first error
        log.debug("the summary could not be written: %s", problem)


def _summary(
    status: str, error: str | None, about: Mapping[str, Any], recorder: Recorder
) -> dict[str, Any]:
    figures = recorder.scores.document()
    for when in ("final", "mean_last_5"):
        for part, value in about["majority_baseline"].items():
            if part in figures[when]:
                figures[when][part]["majority_baseline"] = value
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    scale = 1e6 if sys.platform == "darwin" else 1e3  # bytes there, kilobytes elsewhere
    return {
        "status": status,
        "error": error,
        **figures,
        **about,
        "peak_memory_mb": peak / scale,
        "peak_memory_of_a_worker_mb": _peak_memory_of_a_worker_mb(),
    }


def _peak_memory_of_a_worker_mb() -> float | None:
    """The largest of the worker processes alive; None where there is none, or no /proc."""
    peaks = []
    for worker in multiprocessing.active_children():
        try:
            status = Path(f"/proc/{worker.pid}/status").read_text()
        except OSError:
            continue
        peaks += [int(line.split()[1]) / 1e3 for line in status.splitlines() if "VmHWM" in line]
    return max(peaks, default=None)


def _about(config: Mapping[str, Any], built: Built) -> dict[str, Any]:
    """What a reader has to know beside the figures; constant over the run."""
    dataset = built.dataset
    document = partition_document(built.partition, dataset.class_names, built.task)
    return {
        "rounds_planned": config["rounds"],
        "seed": config["seed"],
        "choices": config.get("choices", {}),
        "malicious_clients": [int(k) for k in built.experiment.malicious.nonzero()[0]],
        "partition_hash": document["hash"],
        "examples_of": {
            "train": sum(document["sizes"]),
            "validation": len(dataset.validation),
            "test": len(dataset.test),
        },
        "majority_baseline": {
            part: built.task.majority_baseline(split.y, dataset.train.y)
            for part, split in (("validation", dataset.validation), ("test", dataset.test))
        },
        "parameters": len(vector_of(built.model)),
        "threads": torch.get_num_threads(),
        "device": config["device"],
        "hardware": {
            "machine": platform.machine(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
        "versions": {
            "fedexp": __version__,
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in PACKAGES},
        },
        "git_commit": _git_commit(),
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()


def _git_commit() -> str | None:
    """The commit that this code was checked out from; None for an installed package."""
    if shutil.which("git") is None:
        return None
    here = Path(__file__).parents[2]
    if not (here / ".git").exists():
        return None
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=40"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return answer.stdout.strip() or None


def _draw(folder: Path, plots: bool) -> str:
    """Report and plots. What was measured is safe already, so a full disk here only says so."""
    from fedexp.reporting.report import report_run

    try:
        return report_run(folder, plots)
    except OSError as problem:
        log.warning("the plots could not be written: %s", problem)
        return f"results: {folder}"


@contextmanager
def _logging_to(folder: Path, quiet: bool) -> Iterator[None]:
    """Everything to fedexp.log, what a person should see to the terminal too."""
    to_file = logging.FileHandler(folder / "fedexp.log", encoding="utf-8")
    to_file.handleError = lambda record: None  # type: ignore[method-assign]  # a full disk
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    to_file.setLevel(logging.DEBUG)
    to_terminal = logging.StreamHandler(sys.stderr)
    to_terminal.setFormatter(logging.Formatter("%(message)s"))
    to_terminal.setLevel(logging.WARNING if quiet else logging.INFO)
    log.setLevel(logging.DEBUG)
    log.propagate = False
    log.handlers = [to_file, to_terminal]
    try:
        yield
    finally:
        log.handlers = []
        to_file.close()
