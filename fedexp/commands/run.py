"""`fedexp run` behind Hydra: one run, or a sweep of them.

Hydra composes the config, makes the folders and starts the jobs. `Gatekeeper`, a Hydra callback,
stands before it: a run that cannot be carried out is refused before Hydra has written anything, and
a sweep that has ended gets its table.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, read_write
from omegaconf.errors import OmegaConfBaseException

from fedexp.commands.answers import answer
from fedexp.commands.arguments import EXIT_OK
from fedexp.commands.continuation import continued
from fedexp.commands.run_help import WORDS, run_help
from fedexp.config import composition, schema
from fedexp.config.folders import conf_folder, config_folders, own_conf_folder
from fedexp.config.hydra_errors import COMPLAINTS, one_line, refusal
from fedexp.config.naming import names_of
from fedexp.core.checks import InputError, did_you_mean
from fedexp.core.files import AtWork, locked, somebody_is_at, write_atomically
from fedexp.core.links import refuse_ways_out
from fedexp.core.objective import direction_of, told_direction
from fedexp.core.plots import Plots
from fedexp.core.renames import present_overrides
from fedexp.run_folder.reservation import refuse_occupied, reserved

if TYPE_CHECKING:
    from fedexp.config.build import Built

EXIT_FAILED_JOBS = 1
DRY_RUN = "--dry-run"
LONGEST_NAME = 60  # of a sweep's folder, without its number

# At import, so that a launcher's worker process, which imports the job, knows our resolvers too.
schema.register()


class FoldersOfTheUser(SearchPathPlugin):
    """Lets configs in `--config-dir` come first, then those in `./conf`, then the packaged ones.

    Not where `./conf` has a `config.yaml`: that is another program's tree, or this repository's.
    """

    # Hydra makes the plugin itself, and puts the folder of `--config-dir` behind the packaged one.
    config_dir: ClassVar[Path | None] = None

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Called by Hydra."""
        if self.config_dir is not None:
            place = f"file://{self.config_dir.absolute()}"
            search_path.prepend(composition.NAMED, place, "main")
        if (own := own_conf_folder()) is not None:
            search_path.prepend(composition.OWN, f"file://{own}", "main")


Plugins.instance().register(FoldersOfTheUser)
composition.install()


class PastHydra(BaseException):
    """Carries an error out of Hydra, which would make a warning or a longer message of it."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        super().__init__(error)


@contextmanager
def _past_hydra() -> Iterator[None]:
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise PastHydra(InputError(one_line(error))) from error
    except Exception as error:
        raise PastHydra(error) from error


class Gatekeeper(Callback):
    """Refuses bad input before anything is written; ends a sweep with its table."""

    new_folders: ClassVar[list[Path]] = []  # that Hydra makes for a sweep, the innermost first
    admitted: ClassVar[Admitted | None] = None  # the single run that is about to start
    held: ClassVar[ExitStack] = ExitStack()  # its folder and workers, until `leave`

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Before a single run: build everything, and see whether the folder can be used."""
        with _past_hydra():
            admitted = admit(resolve(config, config.hydra), *run_folder(config))
            Gatekeeper.admitted = Gatekeeper.held.enter_context(admitted)
            with read_write(config.hydra.run):
                config.hydra.run.dir = str(Gatekeeper.admitted.folder)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Before a sweep."""
        folder = Path(config.hydra.sweep.dir)
        with _past_hydra():
            refuse_ways_out(folder, below=False)  # Hydra writes multirun.yaml through a link
            _refuse_unwritable(folder, "hydra.sweep.dir")
            _follow_the_objective(config)
            Gatekeeper.new_folders = [p for p in (folder, *folder.parents) if not p.exists()]

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """After a sweep: its table, and exit code 1 if a job failed."""
        from fedexp.reporting.sweep_report import report_sweep
        from fedexp.run_folder.documents import read_summary

        folder = Path(config.hydra.sweep.dir)
        with _past_hydra():
            if not any(folder.rglob("summary.json")):
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
        cls.admitted = None
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
        if len(words) < len(arguments):
            from fedexp.commands.dry_run import show

            show(overrides, bool({"-m", "--multirun"} & {*options}))
            return EXIT_OK
        sys.argv = [sys.argv[0], *options, *overrides]
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
    with _past_hydra():
        if of_hydra.mode == RunMode.MULTIRUN:
            summary = _job_of_a_sweep(cfg, folder)
        else:
            admitted = Gatekeeper.hand_over()
            assert admitted is not None, "Hydra has started a run that the gatekeeper has not seen"
            _write_hydra_documents(cfg, folder)
            with using(named(admitted.config["store"], one_of_many=False)):
                summary, text = run(admitted.config, folder, resume=False, built=admitted.built)
            answer("" if cfg.quiet else text, lambda: document_of(folder))
    value = (summary.get("final") or {}).get("validation", {}).get(cfg.objective)
    return math.nan if value is None else float(value)


def document_of(folder: Path) -> dict[str, Any]:
    """What a program is told of the run, or the sweep, in a folder."""
    from fedexp.commands.documents import of_folders

    return of_folders([folder])


def _follow_the_objective(config: DictConfig) -> None:
    """Have a sweeper that optimises go where `objective` is better, unless it was told where.

    Raises:
        InputError: there is no validation part to measure it on.
    """
    sweeper = config.hydra.sweeper
    if "direction" in sweeper and OmegaConf.select(config, "dataset.validation_size") == 0:
        reason = "leaves a sweeper that optimises no figure to go by: those on test choose nothing"
        raise InputError(reason, "dataset.validation_size", 0)
    if "direction" in sweeper and not told_direction(config.hydra.overrides.hydra):
        with read_write(sweeper):
            sweeper.direction = direction_of(config.objective)


_told: list[Callable[[Path], None]] = []


@contextmanager
def told_where(tell: Callable[[Path], None]) -> Iterator[None]:
    """Have `tell` called with the folder of every job of a sweep that this process has locked."""
    _told.append(tell)
    try:
        yield
    finally:
        _told.remove(tell)


def _job_of_a_sweep(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Run, go on with, or skip one job; skip it also where another process is at it."""
    try:
        with locked(folder):
            for tell in _told:
                tell(folder)
            return _job_in_a_locked_folder(cfg, folder)
    except AtWork:
        _say(cfg, f"{folder.name}: another process is at it")
        return {}


def _job_in_a_locked_folder(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Run, go on with, or skip one job; a failure is written down and does not stop the others."""
    from fedexp.commands.execution import draw, run, study
    from fedexp.run_folder.documents import read_config, read_summary, write_config
    from fedexp.run_folder.format import config_hash
    from fedexp.store.use import named, using

    name, started = folder.name, (folder / "metrics.csv").exists()
    resolved: dict[str, Any] = {}
    try:
        resolved = resolve(cfg, HydraConfig.get())
        if started and config_hash(read_config(folder)) != config_hash(resolved):
            reason = "holds the results of another config; take another hydra.sweep.dir"
            raise PastHydra(InputError(reason, "job", name))  # no failure of this job alone
        before = read_summary(folder)
        if before.get("status") == "complete":
            _say(resolved, f"{name}: complete already")
            study(resolved, folder)
            if not (folder / "report.md").exists():  # killed between its last round and that
                draw(folder, Plots.of(resolved["plots"]))
            return before
        _say(resolved, f"{name}: {'goes on' if started else 'starts'}")
        (folder / "error.txt").unlink(missing_ok=True)
        _write_hydra_documents(cfg, folder)
        with using(named(resolved["store"], one_of_many=True)):
            return run(resolved, folder, resume=started)[0]
    except BrokenPipeError:
        raise
    except Exception as error:
        if resolved and not started:
            write_config(folder, resolved)
        note_failure(folder, one_line(error))
        (folder / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
        return {}


def note_failure(folder: Path, reason: str) -> None:
    """Say that a job has failed, and write it down."""
    from fedexp.run_folder.documents import read_summary, write_summary

    print(f"fedexp: {folder.name}: failed: {reason}", file=sys.stderr)
    write_summary(folder, {**read_summary(folder), "status": "failed", "error": reason})


def _write_hydra_documents(cfg: DictConfig, folder: Path) -> None:
    """`.hydra/`, as Hydra writes it; but Hydra would before anybody knows whose the folder is."""
    of_hydra = HydraConfig.get()
    documents = {
        "config": cfg,
        "hydra": OmegaConf.create({"hydra": of_hydra}),
        "overrides": of_hydra.overrides.task,
    }
    (folder / ".hydra").mkdir(exist_ok=True)
    for name, document in documents.items():
        write_atomically(folder / ".hydra" / f"{name}.yaml", OmegaConf.to_yaml(document).encode())


def _say(config: Mapping[Any, Any], line: str) -> None:
    if not config.get("quiet", False):
        print(line, flush=True)


def resolve(cfg: DictConfig, of_hydra: Any) -> dict[str, Any]:
    """The config as plain dicts and lists, all interpolations resolved, without Hydra's part."""
    from fedexp.config.found import settle  # with torch, which a question to Hydra can do without

    plain = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    settle(plain)
    container = OmegaConf.to_container(plain, resolve=True, throw_on_missing=True)
    assert isinstance(container, dict)
    config = {str(key): value for key, value in container.items()}
    schema.check_root_keys(container)
    _make_absolute(container)
    composed = {
        k: str(v)
        for k, v in of_hydra.runtime.choices.items()
        if not k.startswith("hydra/") and v is not None
    }
    own = FoldersOfTheUser.config_dir
    chosen = names_of(config, composed, config_folders(None if own is None else str(own)))
    folders = composition.folders_used(of_hydra)
    unnamed = composition.taken_unnamed(folders, of_hydra.runtime.choices)
    for group, place in unnamed.items():
        chosen[group] = f"{chosen[group]} of {place}"
    overrides = [str(override) for override in of_hydra.overrides.task]
    return {
        **config,
        "choices": chosen,
        "overrides": overrides,
        **({"config_folders": folders} if folders else {}),
        **({"taken_unnamed": unnamed} if unnamed else {}),
    }


def _make_absolute(container: dict[Any, Any]) -> None:
    """The places that a run starts from, in its config: it may go on in another current folder."""
    model = container["model"]
    for node, key in ((container, "from"), (model, "weights")):
        if isinstance(node, dict) and isinstance(node.get(key), str):
            node[key] = str(Path(node[key]).expanduser().absolute())


def run_folder(config: DictConfig) -> tuple[Path, bool]:
    """The folder of a single run, and whether the clock has named it, to the second or coarser."""
    stated = OmegaConf.to_container(config.hydra.run, resolve=False)
    assert isinstance(stated, dict)
    return Path(config.hydra.run.dir), "${now:" in str(stated["dir"])


@dataclass(frozen=True)
class Admitted:
    """A run that can be carried out."""

    config: dict[str, Any]  # resolved
    built: Built
    folder: Path  # made, and locked


@contextmanager
def admit(config: dict[str, Any], folder: Path, by_clock: bool) -> Iterator[Admitted]:
    """Let a run pass that can be carried out; it has its folder to itself until the end.

    Args:
        config: the resolved config.
        folder: for the run.
        by_clock: two runs may come to its name by chance: then the next free number goes behind it.

    Raises:
        InputError: `folder` holds a run or cannot be written to, or `config` is wrong. Nothing was
            written.
    """
    from fedexp.commands.execution import prepare
    from fedexp.store.use import named

    refuse_place(folder, by_clock)
    named(config["store"], one_of_many=False)
    built = prepare(config)
    with closing(built.experiment.backend), reserved(folder, by_clock) as own:
        yield Admitted(config, built, own)


def refuse_place(folder: Path, by_clock: bool) -> None:
    """Raise InputError for a folder that is somebody else's, or that cannot be written to."""
    if not by_clock:
        refuse_occupied(folder)
    _refuse_unwritable(folder, "hydra.run.dir")


def _refuse_unwritable(folder: Path, key: str) -> None:
    """Raise InputError unless files can be made in `folder`, which need not exist yet."""
    if folder.exists() and not folder.is_dir():
        raise InputError("is a file, not a folder", key, folder)
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    try:
        if not existing.is_dir():
            raise NotADirectoryError(f"{existing} is a file")
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(bytes(65536))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"cannot be written to: {reason}", key, folder) from error


def sweep_overrides(overrides: Sequence[str]) -> list[str]:
    """What `fedexp run` adds for Hydra: a sweep's folder, named by what is swept.

    The same sweep gets the same folder, so that starting it again skips what is complete. The
    names are those of the preset, or of the keys that are swept.

    >>> sweep_overrides(["seed=0,1", "privacy.delta=1e-5,1e-6", "rounds=3"])[0]
    'hydra.sweep.dir=outputs/sweeps/seed-delta-...'
    """
    parsed = OverridesParser.create().parse_overrides(
        [o for o in overrides if not o.lstrip("+~").startswith("hydra")]
    )
    fixed = sorted(o.input_line or "" for o in parsed if not o.is_sweep_override())
    swept = sorted(o.input_line or "" for o in parsed if o.is_sweep_override())
    digest = hashlib.sha256("\n".join([*fixed, "", *swept]).encode()).hexdigest()[:8]
    presets = [o.value() for o in parsed if o.key_or_group == "experiment"]
    keys = [re.split(r"[./@]", o.key_or_group)[-1] for o in parsed if o.is_sweep_override()]
    name = "-".join(dict.fromkeys(keys))[:LONGEST_NAME].strip("-") or "sweep"
    if presets and isinstance(presets[0], str):
        name = presets[0]
    folder = Path("outputs/sweeps") / f"{name}-{digest}"
    if (before := folder.with_name(f"sweep-{digest}")).is_dir():  # as 0.1 named them
        folder = before
    added = []
    if not any(o.startswith("hydra.sweep.dir=") for o in overrides):
        added.append(f"hydra.sweep.dir={folder.as_posix()}")
    keys = [o.key_or_group for o in parsed if o.key_or_group and not o.is_sweep_override()]
    if keys and not any("exclude_keys" in o for o in overrides):
        added.append(f"hydra.job.config.override_dirname.exclude_keys=[{','.join(keys)}]")
    return added
