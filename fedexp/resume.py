"""`fedexp resume`: go on with a run from what its folder says, and from nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from fedexp import config
from fedexp.checks import InputError
from fedexp.record import WITHOUT_EFFECT, config_hash, read_config, read_summary


def resume(folder: Path, overrides: Sequence[str]) -> str:
    """Finish the run in `folder`; gives the text about it. A complete run is only reported.

    Raises:
        InputError: it is no run folder, or an override would change the results.
    """
    saved = read_config(folder)
    changed = _with_overrides(saved, overrides)
    if config_hash(changed) != config_hash(saved):
        raise InputError(
            "would change the results of the run; only these may change: "
            + ", ".join(key for key in WITHOUT_EFFECT if key != "choices"),
            "override",
            " ".join(overrides),
        )
    if read_summary(folder).get("status") == "complete":
        from fedexp.reporting.report import report_run

        return f"{folder} is complete already\n{report_run(folder)}"
    from fedexp.run import run

    return run(changed, folder, resume=True)[1]


def _with_overrides(saved: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The saved config with `key=value` set; `backend=NAME` takes another backend's YAML."""
    config.register()
    changed = OmegaConf.create(saved)
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise InputError("must look like key=value", "override", override)
        if key == "backend":
            path = config.conf_folder() / "backend" / f"{value}.yaml"
            if not path.is_file():
                raise InputError(
                    f"Allowed: {', '.join(sorted(p.stem for p in path.parent.glob('*.yaml')))}",
                    key,
                    value,
                )
            changed.backend = OmegaConf.load(path)
        elif OmegaConf.select(changed, key) is None and key != "paths.data_dir":
            raise InputError("is not a key of this run's config", key, value)
        else:
            changed = OmegaConf.merge(changed, OmegaConf.from_dotlist([override]))  # type: ignore[assignment]
    container = OmegaConf.to_container(changed, resolve=True)
    assert isinstance(container, dict)
    return {str(k): v for k, v in container.items()}
