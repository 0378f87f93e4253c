"""Folders made once a session, by whichever of pytest-xdist's workers needs one first."""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest


def shared_folder(
    factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]
) -> Path:
    """The folder `name`, after `make(folder)` has filled it. Not to be changed."""
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # the workers' own folders lie side by side, in one of this session
    folder, done = base / name, base / f"{name}.done"
    with open(base / f"{name}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # the other workers wait; given back with the file
        if not done.exists():
            make(folder)
            done.touch()
    return folder
