"""The command that a sweep goes on with: its own, as `multirun.yaml` in its folder tells it.

The folder may be a stranger's. What is said of it is text for a person to read: in a shell's
quotes, on one line, and without `trust`, which only who starts a command gives.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from hydra.errors import HydraException

from fedexp.commands.sweep_folder import sweep_overrides
from fedexp.config.composition import says
from fedexp.core.checks import InputError
from fedexp.core.documents import read_yaml_mapping
from fedexp.core.text import printable

FILE = "multirun.yaml"
PLAIN = re.compile(r"[\w./+-]+")  # what Hydra reads without quotes


def is_sweep(folder: Path) -> bool:
    """Whether a sweep lies there, and no run."""
    return (folder / FILE).is_file() and not (folder / "config.yaml").exists()


def command_of(folder: Path) -> str:
    """What starts the sweep in `folder` again; with dots for its words if they cannot be read."""
    try:
        said = read_yaml_mapping(folder / FILE)["hydra"]["overrides"]
        words = [str(word) for word in (*said["task"], *said["hydra"])]
        added = sweep_overrides([w for w in words if "exclude_keys" not in w])
    except (InputError, HydraException, OSError, KeyError, TypeError):
        return "fedexp run -m ..."
    ours = (*added, "hydra.mode=MULTIRUN")
    dropped = [w for w in words if w in ours or says([w], "trust") or says([w], "hydra.sweep.dir")]
    kept = [word for word in words if word not in dropped]
    place = str(folder)
    if not PLAIN.fullmatch(place):
        place = "'" + place.replace("'", "\\'") + "'"
    command = shlex.join(["fedexp", "run", "-m", *kept, f"hydra.sweep.dir={place}"])
    return printable(command)
