"""From what Hydra composed to the config of a run, as plain dicts and lists, and to its folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fedexp.commands.hydra_setup import FoldersOfTheUser
from fedexp.config import composition, schema
from fedexp.config.folders import config_folders
from fedexp.config.naming import names_of
from fedexp.core.checks import InputError


def resolve(
    cfg: DictConfig, of_hydra: Any, known: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The config as plain dicts and lists, all interpolations resolved, without Hydra's part.

    Args:
        cfg: as composed.
        of_hydra: Hydra's part.
        known: where the data's answers stand already, as in `settle`.
    """
    from fedexp.config.found import settle  # with torch, which a question to Hydra can do without

    plain = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    settle(plain, known)
    container = OmegaConf.to_container(plain, resolve=True, throw_on_missing=True)
    assert isinstance(container, dict)
    config = {str(key): value for key, value in container.items()}
    schema.check_root_keys(container)
    _make_absolute(config)
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


def _make_absolute(config: dict[str, Any]) -> None:
    """The places that a run starts from, in its config: it may go on in another current folder."""
    for node, key in ((config, "from"), (config["model"], "weights")):
        if isinstance(node, dict) and isinstance(node.get(key), str):
            node[key] = str(Path(node[key]).expanduser().absolute())


def run_folder(config: DictConfig) -> tuple[Path, bool]:
    """The folder of a single run, and whether the clock has named it, to the second or coarser."""
    stated = OmegaConf.to_container(config.hydra.run, resolve=False)
    assert isinstance(stated, dict)
    refuse_no_name("hydra.run.dir", config.hydra.run.dir)
    return Path(config.hydra.run.dir), "${now:" in str(stated["dir"])


def refuse_no_name(key: str, folder: str) -> None:
    """Raise InputError for an empty name: `Path("")` is the current folder."""
    if not folder.strip():
        raise InputError("must name a folder (. is the current one)", key, folder)
