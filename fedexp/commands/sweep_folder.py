"""Where a sweep lies, and how its jobs' folders are called: by what is swept."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser

LONGEST_NAME = 60  # of a sweep's folder, without its number


def sweep_overrides(overrides: Sequence[str]) -> list[str]:
    """What `fedexp run` adds for Hydra: a sweep's folder, named by what is swept.

    The same sweep gets the same folder, so that starting it again skips what is complete. The
    names are those of the preset, or of the keys that are swept.

    >>> sweep_overrides(["seed=0,1", "privacy.delta=1e-5,1e-6", "rounds=3"])[0]
    'hydra.sweep.dir=outputs/sweeps/seed-delta-...'
    """
    parsed = OverridesParser.create().parse_overrides(
        [o for o in overrides if not o.lstrip("+~").startswith("hydra")]
    )
    fixed = sorted(o.input_line or "" for o in parsed if not o.is_sweep_override())
    swept = sorted(o.input_line or "" for o in parsed if o.is_sweep_override())
    digest = hashlib.sha256("\n".join([*fixed, "", *swept]).encode()).hexdigest()[:8]
    presets = [o.value() for o in parsed if o.key_or_group == "experiment"]
    keys = [re.split(r"[./@]", o.key_or_group)[-1] for o in parsed if o.is_sweep_override()]
    name = "-".join(dict.fromkeys(keys))[:LONGEST_NAME].strip("-") or "sweep"
    if presets and isinstance(presets[0], str):
        name = presets[0]
    folder = Path("outputs/sweeps") / f"{name}-{digest}"
    if (before := folder.with_name(f"sweep-{digest}")).is_dir():  # as 0.1 named them
        folder = before
    added = []
    if not any(o.startswith("hydra.sweep.dir=") for o in overrides):
        added.append(f"hydra.sweep.dir={folder.as_posix()}")
    keys = [o.key_or_group for o in parsed if o.key_or_group and not o.is_sweep_override()]
    if keys and not any("exclude_keys" in o for o in overrides):
        added.append(f"hydra.job.config.override_dirname.exclude_keys=[{','.join(keys)}]")
    return added
