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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fedexp import config
from fedexp.checks import InputError, did_you_mean

log = logging.getLogger("fedexp")

EXIT_BAD_INPUT, EXIT_FAILED_JOBS = 2, 1

# At import, so that a launcher's worker process, which imports the job, knows our resolvers too.
config.register()


class FolderOfTheUser(SearchPathPlugin):
    """Lets configs in `./conf` come before the packaged ones.

    Not where `./conf` has a `config.yaml`: that is another program's tree, or this repository's.
    """

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Called by Hydra."""
        conf = Path.cwd() / "conf"
        if conf.is_dir() and not (conf / "config.yaml").exists():
            search_path.prepend(provider="./conf", path=f"file://{conf}", anchor="main")


Plugins.instance().register(FolderOfTheUser)


class Gatekeeper(Callback):
    """Refuses bad input before anything is written; ends a sweep with its table.

    Hydra turns exceptions of a callback into warnings, but lets SystemExit pass.
    """

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Before a single run: build everything once, and see whether the folder can be used."""
        from fedexp.build import build

        with _refusing():
            folder = Path(config.hydra.run.dir)
            if (folder / "config.yaml").exists() or (folder / "summary.json").exists():
                raise InputError(
                    f"holds a run already; continue it with: fedexp resume {folder}",
                    "hydra.run.dir",
                    folder,
                )
            resolved = resolve(config, config.hydra.runtime.choices)
            _refuse_unwritable(folder, "hydra.run.dir")
            build(resolved).experiment.backend.close()

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Before a sweep."""
        with _refusing():
            _refuse_unwritable(Path(config.hydra.sweep.dir), "hydra.sweep.dir")

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """After a sweep: its table, and exit code 1 if a job failed."""
        from fedexp.record import read_summary
        from fedexp.reporting.report import report_sweep

        folder = Path(config.hydra.sweep.dir)
        with _refusing():
            print(report_sweep([folder]))
        summaries = [read_summary(path.parent) for path in folder.rglob("summary.json")]
        if any(summary.get("status") != "complete" for summary in summaries):
            sys.exit(EXIT_FAILED_JOBS)


class _refusing:
    """Turns what is wrong with the input into one line on stderr and exit code 2."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, InputError | HydraException | OmegaConfBaseException):
            print(f"fedexp: {one_line(error)}", file=sys.stderr)
            raise SystemExit(EXIT_BAD_INPUT) from error


@hydra.main(config_path=str(config.conf_folder()), config_name="config", version_base="1.3")
def job(cfg: DictConfig) -> float:
    """Carry out one job; gives the configured validation metric, which a sweeper may optimise."""
    from fedexp.run import run

    of_hydra = HydraConfig.get()
    folder = Path(of_hydra.runtime.output_dir)
    if of_hydra.mode == RunMode.MULTIRUN:
        summary = _job_of_a_sweep(cfg, folder)
    else:
        summary, text = run(resolve(cfg, of_hydra.runtime.choices), folder, resume=False)
        if not cfg.quiet:
            print(text)
    value = (summary.get("final") or {}).get("validation", {}).get(cfg.objective)
    return math.nan if value is None else float(value)


def _job_of_a_sweep(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Run, go on with, or skip one job; a failure is written down and does not stop the others."""
    from fedexp.record import config_hash, read_config, read_summary, write_summary
    from fedexp.run import run

    name = folder.name
    resolved: dict[str, Any] = {}
    try:
        resolved = resolve(cfg, HydraConfig.get().runtime.choices)
        before = read_summary(folder)
        started = (folder / "config.yaml").exists()
        if started and config_hash(read_config(folder)) != config_hash(resolved):
            raise InputError(
                "holds the results of another config; take another hydra.sweep.dir", "job", name
            )
        if before.get("status") == "complete":
            _say(resolved, f"{name}: complete already")
            return before
        _say(resolved, f"{name}: {'goes on' if started else 'starts'}")
        return run(resolved, folder, resume=started)[0]
    except Exception as error:
        reason = one_line(error)
        _say({}, f"{name}: failed: {reason}")
        failed = {"status": "failed", "error": reason, "choices": resolved.get("choices", {})}
        summary = read_summary(folder)
        if summary.get("status") != "complete":
            summary = {**summary, **failed}
            write_summary(folder, summary)
            (folder / "error.txt").write_text(traceback.format_exc())
        return {}


def _say(resolved: dict[str, Any], line: str) -> None:
    if not resolved.get("quiet", False):
        print(line, flush=True)


def resolve(cfg: DictConfig, choices: Any) -> dict[str, Any]:
    """The config as plain dicts and lists, all interpolations resolved, without Hydra's part."""
    plain = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    container = OmegaConf.to_container(plain, resolve=True, throw_on_missing=True)
    assert isinstance(container, dict)
    chosen = {k: v for k, v in choices.items() if not k.startswith("hydra/") and v is not None}
    return {**{str(k): v for k, v in container.items()}, "choices": chosen}


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

    The same sweep gets the same folder, so that starting it again skips what is complete.
    """
    parsed = OverridesParser.create().parse_overrides(
        [o for o in overrides if not o.lstrip("+~").startswith("hydra")]
    )
    fixed = sorted(o.input_line or "" for o in parsed if not o.is_sweep_override())
    swept = sorted(o.input_line or "" for o in parsed if o.is_sweep_override())
    digest = hashlib.sha256("\n".join([*fixed, "", *swept]).encode()).hexdigest()[:8]
    presets = [o.value() for o in parsed if o.key_or_group == "experiment"]
    name = presets[0] if presets and isinstance(presets[0], str) else "sweep"
    added = []
    if not any(o.startswith("hydra.sweep.dir=") for o in overrides):
        added.append(f"hydra.sweep.dir=outputs/sweeps/{name}-{digest}")
    keys = [str(o.key_or_group) for o in parsed if not o.is_sweep_override()]
    if keys and not any("exclude_keys" in o for o in overrides):
        added.append(f"hydra.job.config.override_dirname.exclude_keys=[{','.join(keys)}]")
    return added


WORDS = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false"}


def one_line(error: BaseException, overrides: Sequence[str] = ()) -> str:
    """An error as one line that names the key and, where one is near, the right choice.

    Hydra's own messages take several lines and leave out what would be right.
    """
    text, cause = str(error), str(error.__cause__ or "")
    missing, options = (getattr(error, a, None) for a in ("missing_cfg_file", "options"))
    if missing is not None and options is not None:
        group, _, choice = str(missing).rpartition("/")
        return f"{group}={choice}: {did_you_mean(choice, options)}Allowed: {', '.join(options)}"
    if found := re.search(r"Could not (?:override|append to config)[^']*'([^']+)'", text):
        suggestion = did_you_mean(found[1], _known_keys(found[1], overrides))
        return f"{found[1]}: there is no such key; {suggestion}See: fedexp run --cfg job"
    if found := re.search(r"Error merging override (\S+)", text):
        wanted = re.search(r"could not be converted to (\w+)", cause)
        must = f"must be {WORDS.get(wanted[1], wanted[1])}" if wanted else cause.splitlines()[0]
        return f"{found[1]}: {must}"
    first = text.splitlines()[0].rstrip(":") if text else type(error).__name__
    key = getattr(error, "full_key", None)
    return f"{key}: {first}" if key and str(key) not in first else first


def _known_keys(wrong: str, overrides: Sequence[str]) -> list[str]:
    """Every key of the config that the other overrides make; of the default one if they fail."""
    from hydra import compose, initialize_config_dir

    others = [o for o in overrides if wrong not in o and not o.startswith("hydra")]
    with initialize_config_dir(str(config.conf_folder()), version_base="1.3"):
        for attempt in (others, []):
            try:
                composed = compose("config", overrides=list(attempt))
            except HydraException:
                continue
            return _flat_keys(OmegaConf.to_container(composed), "")
    return []


def _flat_keys(node: Any, prefix: str) -> list[str]:
    if not isinstance(node, dict):
        return [prefix]
    inner = [k for key, v in node.items() for k in _flat_keys(v, f"{prefix}.{key}".lstrip("."))]
    return [prefix, *inner] if prefix else inner
