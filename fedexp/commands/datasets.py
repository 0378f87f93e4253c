"""The work of `fedexp data check` and `fedexp data get`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

from omegaconf import OmegaConf
from yaml import YAMLError  # type: ignore[import-untyped]

from fedexp.commands.answers import answer
from fedexp.config import schema
from fedexp.config.folders import conf_folder
from fedexp.config.hydra_errors import COMPLAINTS, one_line
from fedexp.config.parts import Parts, prefixed
from fedexp.core.checks import InputError, did_you_mean
from fedexp.core.text import number_of, printable
from fedexp.data.folder import data_folder
from fedexp.data.loader import Loader
from fedexp.data.status import Status
from fedexp.data.status import check as check_status
from fedexp.data.status import get as get_status
from fedexp.data.survey import Surveys

OF_ENDINGS = {".npz": "arrays", ".csv": "table", ".tsv": "table", ".parquet": "table"}
"""How a file ends -> the dataset that reads it; a folder is one of images."""


@final
@dataclass(frozen=True)
class Asked:
    """What a command line says.

    Args:
        names: of datasets, or paths of a person's own data; none: every dataset.
        settings: keys of `dataset` -> value, for paths.
        folders: of configs of datasets, the first wins.
        data_dir: None: the default.
        trust: packages whose code may be built.
    """

    names: Sequence[str]
    settings: Mapping[str, str]
    folders: Sequence[Path]
    data_dir: str | None
    trust: Sequence[str]

    @property
    def known(self) -> dict[str, Path]:
        """Every dataset's YAML by name."""
        found = (p for folder in reversed(self.folders) for p in folder.glob("*.yaml"))
        return {path.stem: path for path in found}


@final
@dataclass(frozen=True)
class State:
    """Of one dataset."""

    name: str
    state: str  # ok, missing, corrupt, broken, or yours: it has to be said which
    detail: str

    @property
    def is_wrong(self) -> bool:
        """Whether somebody has to mend it."""
        return self.state in ("corrupt", "broken")


def check(asked: Asked) -> bool:
    """Print the state of each dataset (all by default); False if something is wrong with one."""
    known, place = asked.known, data_folder(asked.data_dir)
    paths = [name for name in asked.names if _is_path(name) and _is_free(known.get(name))]
    names = [name for name in asked.names if name not in paths]
    if asked.settings and not asked.names:
        key, value = next(iter(asked.settings.items()))
        raise InputError("is of a dataset, and none is named", f"dataset.{key}", value)
    _refuse_unknown(names, known)
    for name in names:
        if not _is_yours(known[name]):
            _loader(known[name], asked)  # one that cannot be made is refused before a word
    own = [_survey(path, asked, place) for path in paths]
    states: list[State] = []
    if names or not paths:
        print(f"data folder: {place}")
        for name in names or sorted(known):
            states.append(_state(name, known[name], asked, lambda x: check_status(x, place)))
    answer("", lambda: _document(place, states, own))
    return not any(of["faults"] for of in own) and not any(state.is_wrong for state in states)


def get(asked: Asked) -> bool:
    """Download what is missing of each dataset; False if one cannot be used afterwards."""
    known, place = asked.known, data_folder(asked.data_dir)
    _refuse_unknown(asked.names, known)
    progress = sys.stderr.isatty()
    states = []
    for name in asked.names:
        status = get_status(_loader(known[name], asked), place, progress)
        states.append(_say(State(name, status.state, status.detail)))
    answer("", lambda: _document(place, states, []))
    return all(state.state == "ok" for state in states)


def _document(
    place: Path, states: Sequence[State], own: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    return {
        "schema": "datasets/1",
        "data_dir": str(place),
        "datasets": [asdict(state) for state in states],
        "own": list(own),
    }


def _is_path(name: str) -> bool:
    return os.path.lexists(name) or "/" in name or os.sep in name or Path(name).suffix in OF_ENDINGS


def _is_free(path: Path | None) -> bool:
    """Whether a name may stand for a path: no dataset has it, or one that needs a path itself."""
    return path is None or _is_yours(path)


def _is_yours(path: Path) -> bool:
    """Whether a YAML leaves something to be said, such as the path."""
    try:
        return bool(OmegaConf.missing_keys(OmegaConf.load(path)))
    except (*COMPLAINTS, YAMLError, OSError):
        return False


def _refuse_unknown(names: Sequence[str], known: Mapping[str, Path]) -> None:
    for name in names:
        if name not in known:
            suggestion = did_you_mean(name, known)
            reason = f"{suggestion}Known: {', '.join(sorted(known))}, or a folder or file of yours"
            raise InputError(reason, "NAME", name)


def _state(name: str, path: Path, asked: Asked, tell: Callable[[Loader], Status]) -> State:
    """The state of one dataset; one that cannot be made, or told, is broken and no other is.

    Raises:
        InputError: it was asked for by name, and is what is broken.
    """
    try:
        if _is_yours(path):
            return _say(State(name, "yours", "fedexp data check FOLDER, or FILE"))
        status = tell(_loader(path, asked))
    except Exception as error:  # of a file or of code that anybody wrote
        if name in asked.names and isinstance(error, InputError):
            raise
        reason = one_line(error) if isinstance(error, COMPLAINTS) else f"{error!r}"
        return _say(State(name, "broken", printable(reason.splitlines()[0])))
    return _say(State(name, status.state, status.detail))


def _survey(path: str, asked: Asked, place: Path) -> dict[str, Any]:
    """Say what is in a person's own data, and what is wrong with them."""
    loader = _of_path(path, asked)
    if not isinstance(loader, Surveys):
        raise InputError("cannot be looked through", "NAME", path)
    with prefixed("dataset"):
        found = loader.survey(place)
    for line in (path, *found.lines):
        print(printable(line))
    for word, lines in (("note", found.remarks), ("wrong", found.faults)):
        for line in lines:
            print(printable(f"{word}: {line}"))
    wrong = len(found.faults)
    are = "is" if wrong == 1 else "are"
    print(f"{number_of(wrong, 'thing')} {are} wrong" if wrong else "clean", flush=True)
    return {"path": path, **{key: list(said) for key, said in asdict(found).items()}}


def _of_path(path: str, asked: Asked) -> Loader:
    """The loader of a person's own data."""
    if not os.path.lexists(path):
        raise InputError("there is no such folder or file", "NAME", path)
    choice = "images" if os.path.isdir(path) else OF_ENDINGS.get(Path(path).suffix.lower(), "")
    if os.path.islink(path) and not os.path.exists(path):
        raise InputError("is a link that leads nowhere", "NAME", path)
    if not choice:
        known = ", ".join(OF_ENDINGS)
        raise InputError(f"is neither a folder nor a file of {known}", "NAME", path)
    node = OmegaConf.load(conf_folder() / "dataset" / f"{choice}.yaml")
    keys = [str(key) for key in node]
    for key, value in asked.settings.items():
        if key not in keys:
            reason = f"{did_you_mean(key, keys)}Known: {', '.join(keys)}"
            raise InputError(reason, f"dataset.{key}", value)
    try:
        given = _plain(OmegaConf.merge(node, {"path": path}), path, asked.settings)
    except (*COMPLAINTS, YAMLError) as error:
        raise InputError(one_line(error)) from error
    for key, value in given.items():
        if value == "???":
            raise InputError(f"say which: dataset.{key}=COLUMN", f"dataset.{key}", "")
    loader: Loader = Parts({"dataset": given}, asked.trust)("dataset")
    return loader


def _loader(path: Path, asked: Asked) -> Loader:
    name = path.stem
    try:
        node = _plain(OmegaConf.load(path), path, asked.settings)
    except COMPLAINTS as error:
        raise InputError(one_line(error)) from error
    try:
        loader: Loader = Parts({"dataset": node}, asked.trust)("dataset")
    except InputError as error:  # of a file, and not of a run's key
        raise InputError(
            error.reason, f"{name}{(error.key or '').removeprefix('dataset')}", error.value
        ) from None
    return loader


def _plain(config: Any, path: Path | str, settings: Mapping[str, str]) -> dict[str, Any]:
    """A dataset's YAML with its keys as they were set by hand, its interpolations resolved."""
    schema.register()  # what these are
    by_hand = OmegaConf.from_dotlist([f"{key}={value}" for key, value in settings.items()])
    whole = OmegaConf.create({"dataset": OmegaConf.merge(config, by_hand)})
    node = OmegaConf.to_container(whole.dataset, resolve=True)
    if not isinstance(node, dict) or "_target_" not in node:
        raise InputError(f"{path} has no _target_")
    return {str(key): value for key, value in node.items()}


def _say(state: State) -> State:
    print(f"{state.name:<16}{state.state:<9}{state.detail}", flush=True)
    return state
