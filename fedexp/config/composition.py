"""What a composed config owes to `./conf`: nothing under our names, and no code of Hydra's running.

Configs lie in the packaged folder, in `--config-dir`, which is named on the command line, and in
`./conf` of the current folder, which nobody names: it may have come with somebody's archive. So
`./conf` may add choices, but not take the place of ours, and where it is in use whatever Hydra
itself would run (callbacks, logging handlers, plugins, the environment) is what was installed,
or what the command line says.

Hydra acts on a config as soon as it has composed it, and offers no place in between; the one class
that composes is replaced by its child below, for single runs and for the jobs of a sweep alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import hydra._internal.hydra as inside_hydra
from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from fedexp.config.folders import conf_folder
from fedexp.config.swept_choices import Composed, Entry, Lines, SweptChoices, entries_of
from fedexp.core.checks import InputError

OWN = "./conf"
"""Hydra's word (`provider`) for the current folder's configs."""

NAMED = "command-line"
"""The same for `--config-dir`."""

IS_SINGLE = "hydra.mode=RUN"
"""What Hydra adds to the overrides, once it knows."""

PLUGINS = ("hydra._internal.core_plugins.", "hydra_plugins.", "optuna.")
GATEKEEPER = {"fedexp": {"_target_": "fedexp.commands.run.Gatekeeper"}}
SILENT = {"version": 1, "root": None, "disable_existing_loggers": False}
AS_INSTALLED = {
    "callbacks": GATEKEEPER,
    "job_logging": SILENT,
    "hydra_logging": SILENT,
    "job.env_set": {},
    "job.env_copy": [],
    "searchpath": [],
}
"""Keys of Hydra's that run code, or write where they please, with what `conf/config.yaml` makes."""


class Loader(ConfigLoaderImpl):
    """Hydra's, but what it composes has been looked at."""

    said: ClassVar[Sequence[str]] = ()  # the overrides on the command line

    def __init__(self, config_search_path: Any) -> None:
        super().__init__(config_search_path)
        self._swept: dict[tuple[str, ...], SweptChoices] = {}
        self._entries: tuple[Entry, ...] = ()  # of the defaults list composed last
        self._said = tuple(self.said)  # goes with it to the processes of a launcher
        self._composed: tuple[tuple[str | None, ...], DictConfig] | None = None

    def _compose_config_from_defaults_list(self, defaults: Any, repo: Any) -> DictConfig:
        if any(source.provider == OWN for source in repo.get_sources()):
            for default in defaults:
                _refuse_shadow(str(default.config_path), repo)
        self._entries = entries_of(defaults)
        return super()._compose_config_from_defaults_list(defaults=defaults, repo=repo)

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        """Called by Hydra: twice for a single run, of which the first call only asks for its mode.

        Composing takes a quarter of a second, so the second call is given what the first composed.
        """
        asks_for_the_mode = not validate_sweep_overrides and not _can_sweep(overrides)
        if asks_for_the_mode:
            run_mode, validate_sweep_overrides = RunMode.RUN, True
        elif self._composed is not None and run_mode == RunMode.RUN:
            asked, config = self._composed
            if (config_name, *overrides) == (*asked, IS_SINGLE):
                config.hydra.mode = RunMode.RUN
                config.hydra.overrides.hydra.append(IS_SINGLE)
                self._composed = None
                return config
        config = super().load_configuration(
            config_name, overrides, run_mode, from_shell, validate_sweep_overrides
        )
        if any(source.provider == OWN for source in config.hydra.runtime.config_sources):
            _refuse_code(config, self._said)
        if asks_for_the_mode:
            self._composed = (config_name, *overrides), config
        return config

    def load_sweep_config(
        self, master_config: DictConfig, sweep_overrides: list[str]
    ) -> DictConfig:
        """The config of one job, as Hydra makes it; called twice a job, to check and to start it.

        Most of the work is to find and merge the files of the groups, which `SweptChoices` does
        for few of the jobs. What it gives takes the values.
        """
        parsed = [_parsed(line) for line in sweep_overrides]
        of_hydra = OmegaConf.to_container(master_config.hydra.overrides.hydra)
        assert isinstance(of_hydra, list)
        elsewhere = master_config.hydra.searchpath  # groups that `repository` has not heard of
        if elsewhere or any(override.key_or_group.startswith("hydra") for override in parsed):
            return super().load_sweep_config(master_config, sweep_overrides)
        groups = tuple(
            str(override.input_line)
            for override in parsed
            if override.package is not None or self.repository.group_exists(override.key_or_group)
        )
        config = self._swept_choices(master_config.hydra.job.config_name, of_hydra).config(groups)
        values = [override for override in parsed if override.input_line not in groups]
        self._apply_overrides_to_config(values, config)
        stated = config.hydra.job.config.override_dirname
        with open_dict(config.hydra):
            config.hydra.overrides.task = list(sweep_overrides)
            config.hydra.job.override_dirname = get_overrides_dirname(
                parsed, stated.exclude_keys, stated.item_sep, stated.kv_sep
            )
        if any(source.provider == OWN for source in config.hydra.runtime.config_sources):
            _refuse_code(config, self._said)
        OmegaConf.copy_cache(from_config=master_config, to_config=config)
        return config

    def _swept_choices(self, name: str | None, of_hydra: list[str]) -> SweptChoices:
        """What has been composed of the choices of a sweep with these settings of Hydra's."""

        def compose(choices: Lines) -> Composed:
            config = super(Loader, self).load_configuration(
                config_name=name, overrides=[*of_hydra, *choices], run_mode=RunMode.RUN
            )
            return Composed(config, self._entries)

        return self._swept.setdefault((str(name), *of_hydra), SweptChoices(compose))


@lru_cache(maxsize=4096)
def _parsed(line: str) -> Override:
    (override,) = OverridesParser.create().parse_overrides([line])
    return override


def _can_sweep(overrides: list[str]) -> bool:
    parsed = OverridesParser.create().parse_overrides(overrides)
    return any(override.is_sweep_override() for override in parsed)


def install() -> None:
    """Let Hydra compose with `Loader` from here on. Calling it twice is harmless."""
    inside_hydra.ConfigLoaderImpl = Loader  # type: ignore[attr-defined]


@contextmanager
def hydra_set_aside() -> Iterator[None]:
    """Set aside a Hydra that is initialised already, and bring it back."""
    there = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = there


def says(overrides: Iterable[str], key: str) -> bool:
    """Whether an override sets `key`, or something in it.

    >>> says(["trust=[mine.]"], "trust"), says(["tracker.mlflow.experiment=a"], "trust")
    (True, False)
    """
    names = (override.lstrip("+~").partition("=")[0] for override in overrides)
    return any(name == key or name.startswith(f"{key}.") for name in names)


def folders_used(of_hydra: Any) -> list[str]:
    """The folders beside the packaged one that configs were looked for in, the first wins."""
    sources = (s for s in of_hydra.runtime.config_sources if s.provider in (NAMED, OWN))
    return list(dict.fromkeys(str(source.path) for source in sources))


def taken_unnamed(folders: Sequence[str], choices: Mapping[str, Any]) -> dict[str, str]:
    """Group -> folder, where a folder gave a choice that nobody can tell from ours by its name.

    Args:
        folders: beside the packaged one, the first wins.
        choices: group -> choice, as composed. `local=default` is taken in wherever it lies.
    """
    found = {}
    for group, choice in choices.items():
        place = Path(str(group), f"{choice}.yaml")
        ours = group == "local" or (conf_folder() / place).is_file()
        holder = next((folder for folder in folders if Path(folder, place).is_file()), None)
        if ours and holder is not None:
            found[str(group)] = holder
    return found


def _refuse_shadow(name: str, repo: Any) -> None:
    """Raise InputError where `./conf` would give what we or Hydra give under that name."""
    holders = [source for source in repo.get_sources() if source.is_config(name)]
    if len(holders) > 1 and holders[0].provider == OWN:
        raise InputError(
            "would take the place of fedexp's own without a word: give it another name, or name "
            "its folder with --config-dir",
            "file",
            Path(holders[0].path) / f"{name}.yaml",
        )


def _refuse_code(config: DictConfig, said: Sequence[str]) -> None:
    """Raise InputError where a config of `./conf` has Hydra run something of its own."""
    for key, installed in AS_INSTALLED.items():
        found = _plain(OmegaConf.select(config.hydra, key))
        if (found or None) != (installed or None) and not _named(said, key):
            raise _refusal(f"hydra.{key}", found)
    for key in ("launcher", "sweeper"):
        for target in _targets(_plain(config.hydra[key])):
            if not target.startswith(PLUGINS) and not _named(said, key):
                raise _refusal(f"hydra.{key}._target_", target)
    for key in _plain(config.hydra.sweeper).get("params") or {}:
        if key.lstrip("+~").partition(".")[0].partition("/")[0] in ("hydra", "trust"):
            raise _refusal("hydra.sweeper.params", key)
    if config.get("trust") and not says(said, "trust"):
        raise _refusal("trust", config.trust)


def _refusal(key: str, found: object) -> InputError:
    return InputError(
        "comes from a config in ./conf, and could run code; only the command line can ask for it, "
        "or a config in a folder that it names with --config-dir",
        key,
        found,
    )


def _named(said: Sequence[str], key: str) -> bool:
    names = [override.lstrip("+~").replace("/", ".") for override in said]
    return says(names, f"hydra.{key}")


def _plain(node: Any) -> Any:
    return OmegaConf.to_container(node, resolve=False) if OmegaConf.is_config(node) else node


def _targets(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "_target_":
                yield str(value)
            else:
                yield from _targets(value)
    if isinstance(node, list):
        for value in node:
            yield from _targets(value)
