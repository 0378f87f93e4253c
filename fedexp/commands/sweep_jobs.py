"""The jobs of a sweep, as Hydra's sweeper makes them of what is said and of a preset's `params`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from fedexp.core.checks import InputError


def jobs_of(sweeper: Mapping[str, Any], said: Sequence[str], loader: Any = None) -> list[list[str]]:
    """The overrides of every job, in the order in which they are started.

    Args:
        sweeper: `hydra.sweeper` of the config.
        said: the overrides, without those of Hydra's own keys.
        loader: of configs, which `glob(...)` asks.

    Raises:
        InputError: the sweeper chooses its jobs as it goes.
    """
    params = [f"{key}={value}" for key, value in (sweeper.get("params") or {}).items()]
    parsed = OverridesParser.create(config_loader=loader).parse_overrides([*params, *said])
    if "n_trials" in sweeper:
        raise _chooses()
    try:
        batches = BasicSweeper.split_arguments(parsed, None)
    except HydraException as error:
        raise _chooses() from error
    return [job for batch in batches for job in batch]


def _chooses() -> InputError:
    reason = "chooses its jobs as it goes: they are not known beforehand"
    return InputError(reason, "hydra/sweeper", "")
