"""`fedexp run --dry-run`: what would come, and what would be refused. Nothing is written.

A sweep's jobs are planned one after the other, from all over the sweep, as long as `PATIENCE`
lasts; the others are counted.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from fedexp.commands.admission import refuse_place
from fedexp.commands.answers import answer
from fedexp.commands.execution import prepare
from fedexp.commands.planning import Foreseen, as_document, as_text, epsilon_of, foresee
from fedexp.commands.resolution import resolve, run_folder
from fedexp.commands.sweep_jobs import jobs_of
from fedexp.config.folders import conf_folder
from fedexp.config.hydra_errors import COMPLAINTS, refusal
from fedexp.config.parts import Parts
from fedexp.core.checks import InputError
from fedexp.core.preparation import over, say
from fedexp.core.text import duration
from fedexp.data.download import present
from fedexp.data.folder import data_folder

PATIENCE = 60.0  # seconds after which no further job of a sweep is planned
GOLDEN = (math.sqrt(5) - 1) / 2  # multiples of it, modulo 1, lie evenly however many they are


def show(overrides: Sequence[str], multirun: bool) -> None:
    """Answer with the plan of a run, or of a sweep.

    Args:
        overrides: as `fedexp run` hands them to Hydra.
        multirun: whether the command line says that it is a sweep.

    Raises:
        InputError: the run would be refused, or its data would have to be downloaded.
    """
    mode = RunMode.MULTIRUN if multirun else RunMode.RUN
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        config: DictConfig = hydra.compose_config(
            "config",
            list(overrides),
            run_mode=mode,
            from_shell=False,
            validate_sweep_overrides=False,
        )
        if not multirun and config.hydra.mode != RunMode.MULTIRUN:
            # Once more, as what is swept without -m is refused.
            config = hydra.compose_config(
                "config", list(overrides), run_mode=mode, from_shell=False
            )
            folder, by_clock = run_folder(config)
            resolved = resolve(config, config.hydra)
            refuse_place(folder, by_clock)
            plan = _planned(resolved)
            over()
            text = f"A run in {folder}; nothing was written.\n{as_text(plan)}"
            answer(text, lambda: as_document(plan))
            return
        said = OmegaConf.to_container(config.hydra.overrides.task)
        assert isinstance(said, list)
        jobs = jobs_of(config.hydra.sweeper, [str(o) for o in said], hydra.config_loader)
        _show_sweep(config, hydra.config_loader, jobs)


def _planned(resolved: Mapping[str, Any]) -> Foreseen:
    _refuse_downloads(resolved)
    built = prepare(resolved)
    say("one round, to measure it")
    return foresee(resolved, built)


def _refuse_downloads(resolved: Mapping[str, Any]) -> None:
    """Raise InputError where a run would begin with a download."""
    place = data_folder(resolved["paths"]["data_dir"])
    loader = Parts(resolved, resolved["trust"])("dataset")
    if missing := [file.path for file in loader.files(place) if not present(file.path)]:
        name = resolved["choices"].get("dataset", "")
        reason = f"{missing[0]} is not there, and a run would download it: fedexp data get {name}"
        raise InputError(reason, "dataset", name)


@final
@dataclass(frozen=True)
class _Job:
    """One job that was tried."""

    overrides: str
    plan: Foreseen | None
    error: InputError | None


def _show_sweep(config: DictConfig, loader: Any, jobs: Sequence[Sequence[str]]) -> None:
    started = time.monotonic()
    tried: list[tuple[int, _Job]] = []
    for k in sorted(range(len(jobs)), key=lambda k: (k * GOLDEN) % 1):
        if tried and time.monotonic() - started > PATIENCE:
            break
        tried.append((k, _tried(config, loader, jobs[k])))
    over()
    found = [job for _, job in sorted(tried, key=lambda pair: pair[0])]
    plans = [job.plan for job in found if job.plan is not None]
    at_once = min(int(config.hydra.launcher.get("workers") or 1), len(jobs), os.cpu_count() or 1)
    alone = len(jobs) * sum(plan.seconds for plan in plans) / len(plans) if plans else math.nan
    folder = Path(config.hydra.sweep.dir)
    answer(
        _as_text(folder, len(jobs), found, alone, at_once),
        lambda: {
            "schema": "plans/1",
            "folder": str(folder),
            "jobs": len(jobs),
            "at_once": at_once,
            "seconds": alone / at_once,
            "tried": [
                {
                    "job": job.overrides,
                    "plan": None if job.plan is None else as_document(job.plan),
                    "refused": None if job.error is None else str(job.error),
                }
                for job in found
            ],
        },
    )


def _tried(config: DictConfig, loader: Any, overrides: Sequence[str]) -> _Job:
    line = " ".join(overrides)
    try:
        of_job = loader.load_sweep_config(config, list(overrides))
        return _Job(line, _planned(resolve(of_job, of_job.hydra)), None)
    except InputError as error:
        return _Job(line, None, error)
    except COMPLAINTS as error:
        return _Job(line, None, refusal(error, overrides))


def _as_text(folder: Path, n: int, tried: Sequence[_Job], alone: float, at_once: int) -> str:
    refused = [f"  {job.overrides}\n    {job.error}" for job in tried if job.error is not None]
    lines = [f"A sweep of {n:,} jobs in {folder}; nothing was written.", ""]
    for job in tried:
        if job.plan is not None:
            up, seconds = job.plan.bytes_up / 1e6, duration(job.plan.seconds)
            said = "" if job.plan.privacy is None else f", {epsilon_of(job.plan.privacy)}"
            lines.append(f"  {job.overrides}: {seconds}, {up:,.1f} MB up{said}")
    if refused:
        lines += ["", f"{len(refused)} would be refused:", *refused]
    if len(tried) < n:
        lines += ["", f"{len(tried)} of {n} jobs were tried, in {PATIENCE:.0f} s."]
    if not math.isnan(alone):
        whole = duration(alone / at_once)
        lines += ["", f"about {whole}, {at_once} at once, if the others take what these do"]
    return "\n".join(lines)
