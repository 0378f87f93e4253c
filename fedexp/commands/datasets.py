"""The work of `fedexp data check` and `fedexp data get`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from fedexp.config import schema
from fedexp.config.hydra_errors import COMPLAINTS, one_line
from fedexp.config.parts import Parts
from fedexp.core.checks import InputError, did_you_mean
from fedexp.data.folder import data_folder
from fedexp.data.status import Status
from fedexp.data.status import check as check_status
from fedexp.data.status import get as get_status


def check(folders: Sequence[Path], names: Sequence[str], data_dir: str | None) -> bool:
    """Print the state of each dataset (all by default); False if one is corrupt."""
    place, loaders = data_folder(data_dir), _loaders(folders, names)
    print(f"data folder: {place}")
    states = [_say(name, check_status(loader, place)) for name, loader in loaders.items()]
    return "corrupt" not in states


def get(folders: Sequence[Path], names: Sequence[str], data_dir: str | None) -> bool:
    """Download what is missing of each dataset; False if one cannot be used afterwards."""
    place = data_folder(data_dir)
    states = [
        _say(name, get_status(loader, place, progress=sys.stderr.isatty()))
        for name, loader in _loaders(folders, names).items()
    ]
    return all(state == "ok" for state in states)


def _loaders(folders: Sequence[Path], arguments: Sequence[str]) -> dict[str, Any]:
    """The loaders of the collections named (of all, if none is), each as its YAML says.

    `dataset.key=value` among the arguments sets a key of those named.
    """
    names = [argument for argument in arguments if "=" not in argument]
    keys = [argument for argument in arguments if "=" in argument]
    for key in keys:
        if not names or not key.startswith("dataset."):
            raise InputError("must be NAME, with dataset.key=value behind it", "NAME", key)
    paths = {path.stem: path for folder in reversed(folders) for path in folder.glob("*.yaml")}
    for name in names:
        if name not in paths:
            known = sorted(paths)
            raise InputError(f"{did_you_mean(name, known)}Known: {', '.join(known)}", "NAME", name)
    nodes = {name: _node(paths[name], keys) for name in names or sorted(paths)}
    return {name: _loader(name, node) for name, node in nodes.items()}


def _loader(name: str, node: dict[str, Any]) -> Any:
    try:
        return Parts({"dataset": node})("dataset")
    except InputError as error:  # of a file, and not of a run's key
        raise InputError(
            error.reason, f"{name}{(error.key or '').removeprefix('dataset')}", error.value
        ) from None


def _node(path: Path, keys: Sequence[str] = ()) -> dict[str, Any]:
    schema.register()  # its interpolations
    try:
        loaded = OmegaConf.create({"dataset": OmegaConf.load(path)})
        loaded = OmegaConf.merge(loaded, OmegaConf.from_dotlist(list(keys)))  # type: ignore[assignment]
        node = OmegaConf.to_container(loaded.dataset, resolve=True)
    except COMPLAINTS as error:
        raise InputError(one_line(error)) from error
    if not isinstance(node, dict) or "_target_" not in node:
        raise InputError(f"{path} has no _target_")
    return {str(key): value for key, value in node.items()}


def _say(name: str, status: Status) -> str:
    print(f"{name:<16}{status.state:<9}{status.detail}", flush=True)
    return status.state
