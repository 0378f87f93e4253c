"""One job of a sweep: started, gone on with, or left to the process that is at it."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from fedexp.commands.hydra_documents import write_hydra_documents
from fedexp.commands.past_hydra import PastHydra, past_hydra
from fedexp.commands.resolution import resolve
from fedexp.config.hydra_errors import one_line
from fedexp.core.checks import InputError, NotThere
from fedexp.core.files import AtWork, locked
from fedexp.core.plots import Plots

_told: list[Callable[[Path], None]] = []


@contextmanager
def told_where(tell: Callable[[Path], None]) -> Iterator[None]:
    """Have `tell` called with the folder of every job of a sweep that this process has locked."""
    _told.append(tell)
    try:
        yield
    finally:
        _told.remove(tell)


def job_of_a_sweep(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Run, go on with, or skip one job; skip it also where another process is at it."""
    try:
        with chdir("."), locked(folder):  # a part may go elsewhere: the next job begins here
            for tell in _told:
                tell(folder)
            return _job_in_a_locked_folder(cfg, folder)
    except AtWork:
        _say(cfg, f"{folder.name}: another process is at it")
        return {}


def _job_in_a_locked_folder(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Run, go on with, or skip one job; a failure is written down and does not stop the others."""
    from fedexp.commands.drawing import draw
    from fedexp.commands.execution import run, study
    from fedexp.commands.resumption import refuse_too_late
    from fedexp.data.loader import forget
    from fedexp.run_folder.documents import read_config, read_summary, write_config
    from fedexp.run_folder.format import config_hash
    from fedexp.store.use import named, using

    name, started = folder.name, (folder / "metrics.csv").exists()
    resolved: dict[str, Any] = {}
    try:
        before = read_summary(folder)
        complete = before.get("status") == "complete"
        saved = read_config(folder) if started else {}
        # The data of a complete job may be gone: what they said stands in its config.
        resolved = resolve(cfg, HydraConfig.get(), saved if complete else None)
        if started and config_hash(saved) != config_hash(resolved):
            reason = "holds the results of another config; take another hydra.sweep.dir"
            raise PastHydra(InputError(reason, "job", name))  # no failure of this job alone
        if complete:
            with past_hydra():  # nor this
                refuse_too_late(folder, saved, resolved)
                remark = _held_to_today(resolved, folder)
            _say(resolved, f"{name}: complete already")
            if remark:
                print(f"fedexp: {name}: {remark}", file=sys.stderr)
            study(resolved, folder)
            if not (folder / "report.md").exists():  # killed between its last round and that
                draw(folder, Plots.of(resolved["plots"]))
            return before
        _say(resolved, f"{name}: {'goes on' if started else 'starts'}")
        (folder / "error.txt").unlink(missing_ok=True)
        write_hydra_documents(cfg, folder)
        with using(named(resolved["store"], one_of_many=True)):
            return run(resolved, folder, resume=started)[0]
    except BrokenPipeError:
        raise
    except Exception as error:
        forget()  # a part that is refused for writing to the data has written to them
        if resolved and not started:
            write_config(folder, resolved)
        note_failure(folder, one_line(error))
        (folder / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
        return {}


def _held_to_today(config: Mapping[str, Any], folder: Path) -> str:
    """A remark about a complete job that might have other figures today; empty for most.

    Raises:
        InputError: it is of other data, another partition, or other code of the user's own; or it
            could not be made today.
    """
    from fedexp.config.origin_today import origin_today
    from fedexp.run_folder.origin import other_machine, refuse_other_origin

    try:
        today = origin_today(config)
    except NotThere as error:
        return f"kept as it is, and not compared with what it was made of: {one_line(error)}"
    except InputError as error:
        reason = f"it was made with other data or code, which today is refused: {one_line(error)}"
        raise InputError(reason, "RUN_DIR", folder) from error
    refuse_other_origin(folder, today)
    changes = other_machine(folder, today)
    return f"kept as it is, and computed with others: {changes}" if changes else ""


def note_failure(folder: Path, reason: str) -> None:
    """Say that a job has failed, and write it down."""
    from fedexp.run_folder.documents import read_summary, write_summary

    print(f"fedexp: {folder.name}: failed: {reason}", file=sys.stderr)
    write_summary(folder, {**read_summary(folder), "status": "failed", "error": reason})


def _say(config: Mapping[Any, Any], line: str) -> None:
    if not config.get("quiet", False):
        print(line, flush=True)
