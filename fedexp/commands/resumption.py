"""The work of `fedexp resume`: go on with a run from what its folder says, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import chdir, closing
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from fedexp.commands.extension import LONGER, extended, refuse_other_noise, same_but_for_rounds
from fedexp.commands.sweep_command import command_of, is_sweep
from fedexp.commands.trust import (
    refuse_borrowed_trackers,
    refuse_borrowed_trust,
    refuse_missing_data,
)
from fedexp.config import schema
from fedexp.config.folders import conf_folder, own_conf_folder
from fedexp.config.hydra_errors import wrong_type
from fedexp.core.checks import InputError, did_you_mean, one_of
from fedexp.core.files import locked
from fedexp.core.plots import Plots
from fedexp.run_folder.documents import read_config, read_summary
from fedexp.run_folder.format import PROVENANCE, WITHOUT_EFFECT


def resume(folder: Path, overrides: Sequence[str], named: Path | None) -> str:
    """Finish the run in `folder`; gives the text about it, none if the run is quiet.

    A complete run is only reported, unless it is given more rounds.

    Args:
        folder: of the run.
        overrides: of this command line.
        named: what `--config-dir` says.

    Raises:
        InputError: it is no run folder, an override would change the results so far, or its config
            asks for what only the command line can give.
    """
    if is_sweep(folder):
        raise InputError(
            "is a sweep, which its own command goes on with: complete jobs are skipped, others go "
            f"on where they stopped: {command_of(folder)}",
            "RUN_DIR",
            folder,
        )
    saved = read_config(folder)
    schema.check_root_keys({k: v for k, v in saved.items() if k not in PROVENANCE})
    _refuse_store(overrides)
    refuse_borrowed_trust(saved, overrides)
    refuse_missing_data(saved, overrides)
    try:
        changed = _with_overrides({**saved, "trust": []}, overrides, named)
    except (OmegaConfBaseException, YAMLError) as error:
        reason = wrong_type(str(error))
        raise InputError(f"cannot be read: {reason}", "override", " ".join(overrides)) from error
    if not same_but_for_rounds(saved, changed):
        others = [key for key in WITHOUT_EFFECT if key not in ("store", "leakage", "backend")]
        raise InputError(
            "would change the results of the run; may change: rounds (to more), "
            f"{', '.join(others)}, backend (but to none with own_bits: true)",
            "override",
            " ".join(overrides),
        )
    changed = extended(folder, saved, changed, named)
    if _is_complete(read_summary(folder), changed["rounds"]):
        refuse_too_late(folder, saved, changed)
        if changed["checkpoint_every"] != saved["checkpoint_every"]:
            raise _too_late(folder, "checkpoint_every", changed["checkpoint_every"])
        from fedexp.commands.drawing import draw
        from fedexp.commands.execution import study

        with locked(folder):
            study(changed, folder)
        text = f"{folder} is complete already\n{draw(folder, Plots.of(changed['plots']))}"
    else:
        from fedexp.commands.execution import prepare, run

        with chdir("."):  # a part of somebody's own may go elsewhere while it is built
            built = prepare(changed)
        with closing(built.experiment.backend), locked(folder):
            refuse_borrowed_trackers(built.observers, overrides)
            longer = None
            if changed["rounds"] != saved["rounds"]:
                with chdir("."):
                    before = prepare({**changed, "rounds": saved["rounds"]})
                built = refuse_other_noise(folder, built, before, changed["rounds"])
                longer = {**saved, **{key: changed[key] for key in LONGER}}
            text = run(changed, folder, resume=True, built=built, longer=longer)[1]
    return "" if changed["quiet"] else text


def refuse_too_late(folder: Path, saved: Mapping[str, Any], changed: Mapping[str, Any]) -> None:
    """Raise InputError where a complete run is asked for what only its rounds could have left.

    Args:
        folder: of the run.
        saved: its config.
        changed: what is asked for now.
    """
    for key in ("record_updates", "tracker", "mean_last_rounds"):
        if changed.get(key) and changed[key] != saved.get(key):
            raise _too_late(folder, key, changed[key])


def _too_late(folder: Path, key: str, value: Any) -> InputError:
    reason = f"has an effect on rounds to come, and the run is complete: {folder}"
    return InputError(reason, key, ",".join(value) if isinstance(value, Mapping) else value)


def _refuse_store(overrides: Sequence[str]) -> None:
    """Raise InputError where the command line names a store, which only a run that starts uses."""
    for override in overrides:
        key, _, value = override.partition("=")
        if key == "store":
            reason = "has no effect on a run that goes on: a store is asked as a run starts"
            raise InputError(reason, key, value)


def _is_complete(summary: Mapping[str, Any], rounds: int) -> bool:
    """Whether all rounds are done; not if it was given more since it was."""
    return summary.get("status") == "complete" and summary.get("rounds_planned", rounds) == rounds


def _has(config: Any, key: str) -> bool:
    """Whether the config has the key, be its value null."""
    above, _, last = key.rpartition(".")
    node = OmegaConf.select(config, above) if above else config
    return OmegaConf.is_dict(node) and last in node


def _with_overrides(
    saved: dict[str, Any], overrides: Sequence[str], named: Path | None
) -> dict[str, Any]:
    """The saved config with `key=value` set; `backend=` and `tracker=NAME` take that one's YAML."""
    schema.register()
    changed = OmegaConf.create(saved)
    types = OmegaConf.structured(schema.Schema)
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise InputError("must look like key=value", "override", override)
        if key in ("backend", "tracker"):
            # The last wins: ./conf takes no name of ours, a folder that was named does.
            places = [own_conf_folder(), conf_folder(), named]
            found = (
                path for place in filter(None, places) for path in (place / key).glob("*.yaml")
            )
            paths = {path.stem: path for path in found}
            one_of(sorted(paths), **{key: value})
            changed[key] = OmegaConf.load(paths[value])
        elif key == "leakage":
            raise InputError("a run is attacked by: fedexp leakage RUN leakage=NAME", key, value)
        elif not _has(changed, key) and key != "paths.data_dir":
            suggestion = did_you_mean(key, [k for k in saved if not key.startswith(f"{k}.")])
            raise InputError(f"{suggestion}It is not in the run's config.yaml", key, value)
        else:
            changed = OmegaConf.merge(changed, OmegaConf.from_dotlist([override]))  # type: ignore[assignment]
    OmegaConf.merge(types, {key: changed[key] for key in types})  # raises where a type is wrong
    container = OmegaConf.to_container(changed, resolve=True)
    assert isinstance(container, dict)
    return {str(k): v for k, v in container.items()}
