"""Who may start: a run that can be built, in a folder that is nobody else's."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedexp.core.checks import InputError
from fedexp.run_folder.reservation import refuse_occupied, reserved

if TYPE_CHECKING:
    from fedexp.config.build import Built


@dataclass(frozen=True)
class Admitted:
    """A run that can be carried out."""

    config: dict[str, Any]  # resolved
    built: Built
    folder: Path  # made, and locked


@contextmanager
def admit(config: dict[str, Any], folder: Path, by_clock: bool) -> Iterator[Admitted]:
    """Let a run pass that can be carried out; it has its folder to itself until the end.

    Args:
        config: the resolved config.
        folder: for the run.
        by_clock: two runs may come to its name by chance: then the next free number goes behind it.

    Raises:
        InputError: `folder` holds a run or cannot be written to, or `config` is wrong. Nothing was
            written.
    """
    from fedexp.commands.execution import prepare
    from fedexp.store.use import named

    refuse_place(folder, by_clock)
    named(config["store"], one_of_many=False)
    folder = folder.absolute()  # a part of somebody's own may go elsewhere while it is built
    built = prepare(config)
    with closing(built.experiment.backend), reserved(folder, by_clock) as own:
        yield Admitted(config, built, own)


def refuse_place(folder: Path, by_clock: bool) -> None:
    """Raise InputError for a folder that is somebody else's, or that cannot be written to."""
    if not by_clock:
        refuse_occupied(folder)
    refuse_unwritable(folder, "hydra.run.dir")


def refuse_unwritable(folder: Path, key: str) -> None:
    """Raise InputError unless files can be made in `folder`, which need not exist yet."""
    if folder.exists() and not folder.is_dir():
        raise InputError("is a file, not a folder", key, folder)
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    try:
        if not existing.is_dir():
            raise NotADirectoryError(f"{existing} is a file")
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(bytes(65536))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"cannot be written to: {reason}", key, folder) from error
