"""The jobs of a sweep, as Hydra's sweeper makes them of what is said and of a preset's `params`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from math import prod
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from fedexp.core.checks import InputError

MOST = 100_000


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


def number_of(sweeper: Mapping[str, Any], said: Sequence[str]) -> int | None:
    """How many jobs that makes; None where it is not known beforehand, or beyond `MOST` a key.

    Nothing is listed: what is said may be a stranger's, and make a billion jobs.
    """
    params = [f"{key}={value}" for key, value in (sweeper.get("params") or {}).items()]
    parsed = OverridesParser.create().parse_overrides([*params, *said])
    if "n_trials" in sweeper:
        return None
    values = {}
    for override in parsed:
        if override.is_sweep_override() and not override.is_discrete_sweep():
            return None
        swept = override.is_sweep_override()
        values[override.get_key_element()] = (
            sum(1 for _ in islice(override.sweep_string_iterator(), MOST)) if swept else 1
        )
    return prod(values.values()) if MOST not in values.values() else None


def _chooses() -> InputError:
    reason = "chooses its jobs as it goes: they are not known beforehand"
    return InputError(reason, "hydra/sweeper", "")
