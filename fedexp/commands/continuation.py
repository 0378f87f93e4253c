"""`from=RUN`: what was said on RUN's command line, with what is said now in its place.

The settings of the new run are composed anew from both, so that whatever follows from another key
(the size of the images from the dataset, the length of a schedule from the rounds) still does. RUN
may be a stranger's folder: its `trust`, trackers and the like are not taken over, nor anything that
would be looked up outside of the config.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from fedexp.commands.trust import refuse_borrowed_trust, refuse_missing_data
from fedexp.config.schema import Schema
from fedexp.core.checks import InputError
from fedexp.run_folder.documents import read_config
from fedexp.run_folder.format import WITHOUT_EFFECT

OVERRIDE = re.compile(r"([+~]{0,2})([\w./@-]+)(=.*)?", re.DOTALL)
OUTSIDE = re.compile(r"\$\{(?!fedexp\.)[^}]*:")  # a resolver that is not ours: the environment, ...
NOT_TAKEN = tuple(key for key in WITHOUT_EFFECT if key != "paths")
PRESETS = ("scenario", "experiment", "debug")


def continued(overrides: Sequence[str]) -> list[str]:
    """The overrides of a run; those of RUN first where they say `from=RUN`.

    Raises:
        InputError: RUN is no run, or its config asks for what only the command line can give.
    """
    said = [value for override in overrides if (value := _value_of_from(override)) is not None]
    if not said or said[-1] in ("null", ""):
        return list(overrides)
    folder = Path(said[-1]).expanduser()
    if not (folder / "config.yaml").is_file():
        raise InputError("is not a run's folder (it has no config.yaml)", "from", said[-1])
    saved = read_config(folder)
    refuse_borrowed_trust(saved, overrides)
    refuse_missing_data(saved, overrides)
    # The model's start is RUN's.
    now = [*(key_of(override) for override in overrides), "from", "model.weights"]
    return [*taken_over(folder, saved, now), *overrides]


def taken_over(folder: Path, saved: Mapping[str, Any], now: Sequence[str]) -> list[str]:
    """The overrides of a run that still hold.

    Args:
        folder: of the run.
        saved: its config.
        now: the keys that are said now, or not to be taken over.

    Raises:
        InputError: one of them reaches out of the config.
    """
    kept = [str(old) for old in saved.get("overrides") or []]
    return [old for old in kept if _taken(old, now, folder)]


def _value_of_from(override: str) -> str | None:
    sign, key, value = _parts(override)
    return (value or "=")[1:].strip("'\"") if key == "from" and sign in ("", "+", "++") else None


def _taken(old: str, now: Sequence[str], folder: Path) -> bool:
    """Whether what was said of RUN still holds."""
    key = key_of(old)
    root = key.partition(".")[0]
    known = [*(f.name for f in fields(Schema)), *PRESETS]
    if root not in known or OUTSIDE.search(old):
        raise InputError(f"was started with {old[:60]!r}, which is not taken over", "from", folder)
    # A choice of a group said now takes the place of the choice, and of the keys, of that time.
    replaced = [*now, *NOT_TAKEN]
    return not any(key == other or key.startswith(f"{other}.") for other in replaced)


def key_of(override: str) -> str:
    """The key of an override, of a group's choice too: `training/schedule` is training.schedule."""
    return _parts(override)[1].partition("@")[0].replace("/", ".")


def _parts(override: str) -> tuple[str, str, str | None]:
    found = OVERRIDE.fullmatch(override)
    return (found[1], found[2], found[3]) if found else ("", "", None)
