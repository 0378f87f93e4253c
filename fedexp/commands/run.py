"""`fedexp run` behind Hydra: one run, or a sweep of them.

Hydra composes the config, makes the folders and starts the jobs. `Gatekeeper`, a Hydra callback,
stands before it: a run that cannot be carried out is refused before Hydra has written anything, and
a sweep that has ended gets its table.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, read_write

from fedexp.commands.admission import Admitted, admit, refuse_unwritable
from fedexp.commands.answers import answer
from fedexp.commands.arguments import EXIT_OK
from fedexp.commands.continuation import continued
from fedexp.commands.hydra_documents import write_hydra_documents
from fedexp.commands.hydra_setup import FoldersOfTheUser
from fedexp.commands.job_of_a_sweep import job_of_a_sweep
from fedexp.commands.past_hydra import PastHydra, past_hydra
from fedexp.commands.resolution import refuse_no_name, resolve, run_folder
from fedexp.commands.run_help import WORDS, run_help
from fedexp.commands.sweep_folder import sweep_overrides
from fedexp.commands.sweep_jobs import number_of
from fedexp.config import composition
from fedexp.config.folders import conf_folder, config_folders
from fedexp.config.hydra_errors import COMPLAINTS, refusal, refuse_nameless
from fedexp.core.checks import InputError, at_least, did_you_mean, one_of
from fedexp.core.files import somebody_is_at
from fedexp.core.links import refuse_ways_out
from fedexp.core.objective import (
    DIRECTION,
    DIRECTIONS,
    NO_FIGURE,
    direction_of,
    remark_on_direction,
    told_direction,
)
from fedexp.core.plots import Plots
from fedexp.core.preparation import say
from fedexp.core.renames import present_overrides

EXIT_FAILED_JOBS = 1
DRY_RUN = "--dry-run"
NO_TRIAL = "No trials are completed yet."  # Optuna's word where each of them has failed


class Gatekeeper(Callback):
    """Refuses bad input before anything is written; ends a sweep with its table."""

    new_folders: ClassVar[list[Path]] = []  # that Hydra makes for a sweep, the innermost first
    admitted: ClassVar[Admitted | None] = None  # the single run that is about to start
    swept: ClassVar[DictConfig | None] = None  # the config of a sweep that has started
    held: ClassVar[ExitStack] = ExitStack()  # its folder and workers, until `leave`

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Before a single run: build everything, and see whether the folder can be used."""
        with past_hydra():
            admitted = admit(resolve(config, config.hydra), *run_folder(config))
            Gatekeeper.admitted = Gatekeeper.held.enter_context(admitted)
            with read_write(config.hydra.run):
                config.hydra.run.dir = str(Gatekeeper.admitted.folder)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Before a sweep."""
        folder = Path(config.hydra.sweep.dir)
        with past_hydra():
            refuse_no_name("hydra.sweep.dir", config.hydra.sweep.dir)
            refuse_ways_out(folder, below=False)  # Hydra writes multirun.yaml through a link
            refuse_unwritable(folder, "hydra.sweep.dir")
            _refuse_where_is_no_slurm(config)
            _follow_the_objective(config)
            Gatekeeper.new_folders = [p for p in (folder, *folder.parents) if not p.exists()]
            said = [str(override) for override in config.hydra.overrides.task]
            jobs = number_of(config.hydra.sweeper, said)
            _refuse_one_folder_for_all(config, jobs)
            if (batch := config.hydra.sweeper.get("max_batch_size")) is not None:
                at_least(1, **{"hydra.sweeper.max_batch_size": batch})
            if jobs:  # composing the settings of many takes a while, before one can start
                say("the settings of 1 job" if jobs == 1 else f"the settings of {jobs:,} jobs")
            Gatekeeper.swept = config

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """After a sweep: its table, and exit code 1 if a job failed."""
        from fedexp.reporting.sweep_report import report_sweep
        from fedexp.run_folder.documents import read_summary

        folder = Path(config.hydra.sweep.dir)
        with past_hydra():
            if not any(folder.rglob("summary.json")):
                if any(somebody_is_at(path.parent) for path in folder.rglob(".lock")):
                    return  # each job was left to the process that is at it, and so is the table
                raise InputError("the sweep has no jobs", "hydra.sweep.dir", folder)
            plots = Plots.of(config.plots)
            table = report_sweep([folder], folder, plots.also, plots.style)
            answer("" if config.quiet else table, lambda: document_of(folder))
        for job in (path.parent for path in folder.rglob("summary.json")):
            if read_summary(job).get("status") != "complete" and not somebody_is_at(job):
                sys.exit(EXIT_FAILED_JOBS)

    @classmethod
    def hand_over(cls) -> Admitted | None:
        """What was built for the single run that starts now; nobody gets it twice."""
        admitted, cls.admitted = cls.admitted, None
        return admitted

    @classmethod
    def leave(cls) -> None:
        """Give back what was held for a job, and folders that no job has come to."""
        cls.admitted = cls.swept = None
        cls.held.close()
        cls._remove_folders_without_a_job()

    @classmethod
    def _remove_folders_without_a_job(cls) -> None:
        """Undo what Hydra writes for a sweep before it looks at the jobs, if none was started."""
        folders, cls.new_folders = cls.new_folders, []
        if folders and [path.name for path in folders[0].glob("*")] == ["multirun.yaml"]:
            with suppress(OSError):  # another process works here too
                (folders[0] / "multirun.yaml").unlink()
                for folder in folders:
                    folder.rmdir()


def _refuse_one_folder_for_all(config: DictConfig, jobs: int | None) -> None:
    """Raise InputError where every job would find its folder taken by the one before."""
    stated = OmegaConf.to_container(config.hydra.sweep, resolve=False)
    assert isinstance(stated, dict)
    if jobs != 1 and "${" not in str(stated["subdir"]):
        reason = "is the same for every job; leave it out, or name what is swept, as in '${seed}'"
        raise InputError(reason, "hydra.sweep.subdir", stated["subdir"])


def _refuse_where_is_no_slurm(config: DictConfig) -> None:
    """Raise InputError where the launcher would not find the commands that it calls."""
    launcher = config.hydra.runtime.choices.get("hydra/launcher")
    missing = [command for command in ("sbatch", "srun") if shutil.which(command) is None]
    if launcher == "submitit_slurm" and missing:
        reason = f"needs Slurm, and there is no {missing[0]} here; submitit_local does without"
        raise InputError(reason, "hydra/launcher", launcher)


def main(arguments: Sequence[str]) -> int:
    """Carry out what comes after `fedexp run`; Hydra's whole program, on our terms.

    Raises:
        InputError: anything is wrong with the arguments or with a config.
        SystemExit: Hydra has answered a question, or a job of a sweep has failed.
    """
    if set(arguments).intersection(WORDS):
        return _help(arguments)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints errors over many lines and exits
    logging.getLogger("hydra").addHandler(logging.NullHandler())  # what it logs, it also raises
    overrides: list[str] = []
    try:
        words = [word for word in arguments if word != DRY_RUN]
        options, overrides = _options_and_overrides(words)
        refuse_nameless(overrides)
        if len(words) < len(arguments):
            from fedexp.commands.dry_run import show

            show(overrides, bool({"-m", "--multirun"} & {*options}))
            return EXIT_OK
        sys.argv = [sys.argv[0], *options, *overrides]
        with _ended_without_a_figure():
            job()
    except PastHydra as carried:
        raise carried.error from carried.error.__cause__
    except InputError:
        raise
    except COMPLAINTS as error:
        raise refusal(error, overrides) from error
    finally:
        Gatekeeper.leave()
    return EXIT_OK


@contextmanager
def _ended_without_a_figure() -> Iterator[None]:
    """A sweep has its end also where no trial had a figure."""
    try:
        yield
    except ValueError as error:
        if str(error) != NO_TRIAL or Gatekeeper.swept is None:
            raise
        Gatekeeper().on_multirun_end(Gatekeeper.swept)  # to which Hydra does not come


def _help(arguments: Sequence[str]) -> int:
    """Answer a question for help, with the choices that stand beside it."""
    known, _ = get_args_parser().parse_known_intermixed_args(
        [word for word in arguments if word not in WORDS]
    )
    print(run_help(config_folders(known.config_dir), known.overrides), end="")
    return EXIT_OK


def _options_and_overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Hydra's options and the overrides, in any order on the command line; ours are added."""
    parser = get_args_parser()
    parser.error = _refuse_arguments  # type: ignore[method-assign]
    known, unknown = parser.parse_known_intermixed_args(arguments)
    if unknown:
        known_options = [
            o for action in parser._actions for o in action.option_strings if "--" in o
        ]
        suggestion = did_you_mean(unknown[0], known_options)
        raise InputError(f"{unknown[0]}: there is no such option; {suggestion}See: fedexp run -h")
    if known.experimental_rerun is not None:
        raise InputError(
            "is a pickle, which runs the code in it; to go on with a run: fedexp resume RUN_DIR",
            "--experimental-rerun",
            known.experimental_rerun,
        )
    FoldersOfTheUser.config_dir = known.config_dir and Path(known.config_dir)
    overrides: list[str] = known.overrides
    options = list(arguments)
    for override in overrides:
        options.remove(override)
    overrides = continued(present_overrides(overrides))
    composition.Loader.said = tuple(overrides)
    added = [] if known.shell_completion else sweep_overrides(overrides)
    return options, [*overrides, *added]


def _refuse_arguments(message: str) -> NoReturn:
    raise InputError(f"{message} (see: fedexp run -h)")


@hydra.main(config_path=str(conf_folder()), config_name="config", version_base="1.3")
def job(cfg: DictConfig) -> float:
    """Carry out one job; gives the configured validation metric, which a sweeper may optimise."""
    from fedexp.commands.execution import run
    from fedexp.store.use import named, using

    of_hydra = HydraConfig.get()
    folder = Path(of_hydra.runtime.output_dir)
    with past_hydra():
        if of_hydra.mode == RunMode.MULTIRUN:
            summary = job_of_a_sweep(cfg, folder)
        else:
            admitted = Gatekeeper.hand_over()
            assert admitted is not None, "Hydra has started a run that the gatekeeper has not seen"
            write_hydra_documents(cfg, folder)
            with using(named(admitted.config["store"], one_of_many=False)):
                summary, text = run(admitted.config, folder, resume=False, built=admitted.built)
            answer("" if cfg.quiet else text, lambda: document_of(folder))
    value = (summary.get("final") or {}).get("validation", {}).get(cfg.objective)
    return NO_FIGURE if value is None or math.isnan(value) else float(value)


def document_of(folder: Path) -> dict[str, Any]:
    """What a program is told of the run, or the sweep, in a folder."""
    from fedexp.commands.documents import of_folders

    return of_folders([folder])


def _follow_the_objective(config: DictConfig) -> None:
    """Have a sweeper that optimises go where `objective` is better, unless it was told where.

    Raises:
        InputError: there is no validation part to measure it on, or the direction is none.
    """
    sweeper = config.hydra.sweeper
    if "direction" in sweeper and OmegaConf.select(config, "dataset.validation_size") == 0:
        reason = "leaves a sweeper that optimises no figure to go by: those on test choose nothing"
        raise InputError(reason, "dataset.validation_size", 0)
    if "direction" not in sweeper:
        return
    if told_direction(config.hydra.overrides.hydra):
        one_of(DIRECTIONS, **{DIRECTION: str(sweeper.direction)})
        if remark := remark_on_direction(config.objective, sweeper.direction):
            print(remark, file=sys.stderr)
    else:
        with read_write(sweeper):
            sweeper.direction = direction_of(config.objective)
