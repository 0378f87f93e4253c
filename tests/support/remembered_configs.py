"""Hydra's answers, remembered: what a choice of parts composes to is worked out once a process.

To compose a config takes a quarter of a second, nearly all of it to read and merge the YAML files
of the parts chosen; what a test changes are mostly single values, which Hydra sets afterwards. So
what depends on the chosen parts alone is remembered: a file's content, the list of files and their
merge. Values are parsed, checked and set by Hydra for every config anew.

Only where all files are the packaged ones: tests write and change configs of a user's own.
"""

from __future__ import annotations

import pickle
from dataclasses import replace
from functools import cache
from typing import Any

import omegaconf.base
import omegaconf.grammar_parser
from hydra._internal import config_loader_impl
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.defaults_list import DefaultsList, create_defaults_list
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.plugins import Plugins

from fedexp.config.folders import conf_folder

PACKAGED = (f"{conf_folder()}", "hydra.conf", "")
FRESH_MERGE = ConfigLoaderImpl._compose_config_from_defaults_list
Plugins.instance()  # loads the kinds of sources, from modules of its own
FilesOfAFolder: Any = SourcesRegistry.instance().resolve("file")
FRESH_LOAD = FilesOfAFolder.load_config
FRESH_PARSE = omegaconf.grammar_parser.parse

_files: dict[Any, bytes] = {}
_lists: dict[Any, DefaultsList] = {}
_merges: dict[Any, bytes] = {}


def install() -> None:
    """From here on, in this process."""
    config_loader_impl.create_defaults_list = _list
    ConfigLoaderImpl._compose_config_from_defaults_list = _merge
    FilesOfAFolder.load_config = _load
    omegaconf.base.parse = cache(FRESH_PARSE)  # of interpolations; the trees are only read


def uninstall() -> None:
    """Hydra as it comes."""
    config_loader_impl.create_defaults_list = create_defaults_list
    ConfigLoaderImpl._compose_config_from_defaults_list = FRESH_MERGE
    FilesOfAFolder.load_config = FRESH_LOAD
    omegaconf.base.parse = FRESH_PARSE


def _is_packaged(repo: Any) -> bool:
    return all(source.path in PACKAGED for source in repo.get_sources())


def _load(self: Any, config_path: str) -> Any:
    if self.path not in PACKAGED:
        return FRESH_LOAD(self, config_path)
    key = (self.provider, self.path, config_path)
    if key not in _files:
        _files[key] = pickle.dumps(FRESH_LOAD(self, config_path))
    return pickle.loads(_files[key])


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


def _merge(self: ConfigLoaderImpl, defaults: Any, repo: Any) -> Any:
    if not _is_packaged(repo):
        return FRESH_MERGE(self, defaults=defaults, repo=repo)
    key = repr(defaults)
    if key not in _merges:
        merged = FRESH_MERGE(self, defaults=defaults, repo=repo)
        _merges[key] = pickle.dumps(merged)
    return pickle.loads(_merges[key])
