"""Hydra's answers, remembered: what a choice of parts composes to is worked out once a process.

To compose a config takes a quarter of a second, nearly all of it to read and merge the YAML files
of the parts chosen; what a test changes are mostly single values, which Hydra sets afterwards. So
what depends on the chosen parts alone is remembered: a file's content, the list of files and their
merge. Values are parsed, checked and set by Hydra for every config anew.

Only where all files are the packaged ones: tests write and change configs of a user's own.
"""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from functools import cache
from typing import Any

import omegaconf.base
import omegaconf.grammar_parser
from hydra._internal import config_loader_impl, defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository
from hydra._internal.defaults_list import DefaultsList, create_defaults_list

from fedexp.config.folders import conf_folder

PACKAGED = (f"{conf_folder()}", "hydra.conf", "")
FRESH_MERGE = ConfigLoaderImpl._compose_config_from_defaults_list
FRESH_LOAD = CachingConfigRepository.load_config
FRESH_REPOSITORY = CachingConfigRepository.__init__
FRESH_SINGLE = ConfigLoaderImpl._load_single_config
FRESH_PARSE = omegaconf.grammar_parser.parse
FRESH_MAP = defaults_list._create_interpolation_map

_files: dict[str, Any] = {}
_singles: dict[str, bytes] = {}
_lists: dict[Any, DefaultsList] = {}
_merges: dict[Any, bytes] = {}


def install() -> None:
    """From here on, in this process."""
    config_loader_impl.create_defaults_list = _list
    ConfigLoaderImpl._compose_config_from_defaults_list = _merge
    ConfigLoaderImpl._load_single_config = _single
    CachingConfigRepository.__init__ = _repository
    CachingConfigRepository.load_config = _load
    omegaconf.base.parse = cache(FRESH_PARSE)  # of interpolations; the trees are only read
    defaults_list._create_interpolation_map = _map


def uninstall() -> None:
    """Hydra as it comes."""
    config_loader_impl.create_defaults_list = create_defaults_list
    ConfigLoaderImpl._compose_config_from_defaults_list = FRESH_MERGE
    ConfigLoaderImpl._load_single_config = FRESH_SINGLE
    CachingConfigRepository.__init__ = FRESH_REPOSITORY
    CachingConfigRepository.load_config = FRESH_LOAD
    omegaconf.base.parse = FRESH_PARSE
    defaults_list._create_interpolation_map = FRESH_MAP


def _is_packaged(repo: Any) -> bool:
    return all(source.path in PACKAGED for source in repo.get_sources())


def _repository(self: Any, delegate: Any) -> None:
    """Who looks elsewhere gets a list of places of its own, which a flat copy is enough for."""
    self.delegate, self.cache = copy.copy(delegate), {}


def _load(self: Any, config_path: str) -> Any:
    """A file as it is written: Hydra reads its header and its list of defaults, and merges it."""
    if not _is_packaged(self):
        return FRESH_LOAD(self, config_path)
    if config_path not in _files:
        _files[config_path] = FRESH_LOAD(self, config_path)
    return _files[config_path]


class _Copies:
    """The files of a repository, to be changed by who asks for them."""

    def __init__(self, repo: Any) -> None:
        self._repo = repo

    def load_config(self, config_path: str) -> Any:
        return copy.deepcopy(self._repo.load_config(config_path))

    def get_schema_source(self) -> Any:
        return self._repo.get_schema_source()


def _single(self: ConfigLoaderImpl, default: Any, repo: Any) -> Any:
    """A file as it is merged: at its place in the config."""
    if not _is_packaged(repo):
        return FRESH_SINGLE(self, default, repo)
    key = repr(default)
    if key not in _singles:
        _singles[key] = pickle.dumps(FRESH_SINGLE(self, default, _Copies(repo)))
    return pickle.loads(_singles[key])


def _list(
    repo: Any, config_name: Any, overrides_list: Any, prepend_hydra: Any, skip_missing: Any
) -> DefaultsList:
    def fresh() -> DefaultsList:
        return create_defaults_list(repo, config_name, overrides_list, prepend_hydra, skip_missing)

    if not _is_packaged(repo):
        return fresh()
    values, parts = [], []
    for override in overrides_list:
        # Hydra's own distinction; a sweep's values are neither.
        if override.is_sweep_override():
            continue
        is_value = isinstance(override.value(), dict) or not repo.group_exists(
            override.key_or_group
        )
        (values if is_value else parts).append(override)
    key = (config_name, prepend_hydra, skip_missing, *(part.input_line for part in parts))
    if key not in _lists:
        _lists[key] = fresh()
    known = _lists[key]
    return replace(known, config_overrides=values)


def _map(overrides: Any, defaults: Any, self_added: bool) -> Any:
    """What interpolated entries are resolved with, where there are any: Hydra makes it for all."""
    if any(default.is_interpolation() for default in defaults):
        return FRESH_MAP(overrides, defaults, self_added)
    return None


def _merge(self: ConfigLoaderImpl, defaults: Any, repo: Any) -> Any:
    if not _is_packaged(repo):
        return FRESH_MERGE(self, defaults=defaults, repo=repo)
    key = repr(defaults)
    if key not in _merges:
        merged = FRESH_MERGE(self, defaults=defaults, repo=repo)
        _merges[key] = pickle.dumps(merged)
    return pickle.loads(_merges[key])
