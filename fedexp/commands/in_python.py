"""The work of `fedexp.run`: what `fedexp run` does, for a caller who has a process of their own.

The same config, the same refusals, the same run; but nothing of the process is changed for good:
not the arguments, the loggers, Hydra's state or the number of threads.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig

from fedexp.commands.admission import admit
from fedexp.commands.continuation import continued
from fedexp.commands.execution import run
from fedexp.commands.hydra_setup import FoldersOfTheUser
from fedexp.commands.resolution import resolve, run_folder
from fedexp.config.composition import Loader, hydra_set_aside
from fedexp.config.folders import conf_folder
from fedexp.config.hydra_errors import COMPLAINTS, refusal, refuse_nameless
from fedexp.core.checks import InputError
from fedexp.core.renames import present_overrides
from fedexp.data.loader import forget
from fedexp.store.use import named, using


def run_here(overrides: Sequence[str]) -> Path:
    """Carry out one run in this process; its folder.

    Raises:
        InputError: an override, or what they make together, cannot be used; nothing was written.
    """
    if isinstance(overrides, str) or not isinstance(overrides, Sequence):
        raise InputError("give a list: [...]", "overrides", repr(overrides))
    forget()  # a notebook's process outlives the data that its last run has seen
    with _one_thread_for_now():
        present = present_overrides([str(override) for override in overrides])
        config = composed(continued(present))
        store = named(config[0]["store"], one_of_many=False)
        with admit(*config) as admitted, using(store):
            run(admitted.config, admitted.folder, resume=False, built=admitted.built)
    return admitted.folder


def composed(
    overrides: list[str], config_dir: Path | None = None
) -> tuple[dict[str, Any], Path, bool]:
    """The resolved config, the folder for the run, and whether the clock has named it.

    Args:
        overrides: of the run.
        config_dir: what `--config-dir` says.
    """
    refuse_nameless(overrides)
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
        if any(override.is_sweep_override() for override in parsed):
            raise _sweep(overrides)
        config = hydra_config(overrides, config_dir)
        if config.hydra.mode == RunMode.MULTIRUN:
            raise _sweep(overrides)
        folder, by_clock = run_folder(config)
        resolved = resolve(config, config.hydra)
    except InputError:
        raise
    except COMPLAINTS as error:
        raise refusal(error, overrides) from error
    return resolved, folder.absolute(), by_clock


def hydra_config(overrides: list[str], named: Path | None = None) -> DictConfig:
    """The config with Hydra's part, nothing resolved; `named` is what `--config-dir` says."""
    Loader.said = tuple(overrides)
    place = str(conf_folder())
    with _hydra_of_our_own(named), initialize_config_dir(place, version_base="1.3"):
        return compose("config", overrides=overrides, return_hydra_config=True)


def _sweep(overrides: Sequence[str]) -> InputError:
    command = shlex.join(["fedexp", "run", "-m", *overrides])
    return InputError(f"that is a sweep; start it with: {command}; then fedexp.load(its folder)")


@contextmanager
def _hydra_of_our_own(named: Path | None) -> Iterator[None]:
    """Set aside a Hydra that the caller has initialised, and bring it back."""
    FoldersOfTheUser.config_dir = named
    with hydra_set_aside():
        yield


@contextmanager
def _one_thread_for_now() -> Iterator[None]:
    """A run works with one thread; afterwards there are as many as before."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
