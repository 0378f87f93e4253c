"""Whether a collection is there and intact: what `fedexp data check` and `get` tell."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fedexp.core.checks import InputError
from fedexp.data.download import fetch, present
from fedexp.data.loader import Loader, load_anew


@dataclass(frozen=True)
class Status:
    """`state` of a collection, and one line about it."""

    state: Literal["ok", "missing", "corrupt"]
    detail: str


def check(loader: Loader, data_dir: Path) -> Status:
    """Load the collection to see whether it can be used; downloads nothing.

    Raises:
        InputError: the files are fine but the config asks for something that they cannot give.
    """
    missing = [str(file.path) for file in loader.files(data_dir) if not present(file.path)]
    if missing:
        return Status("missing", ", ".join(missing))
    try:
        dataset = load_anew(loader, data_dir)
    except InputError as error:
        # An error about a config key is not the files' fault.
        if error.key is not None:
            raise
        return Status("corrupt", str(error))
    sizes = f"{len(dataset.train)} train, {len(dataset.validation)} validation"
    return Status("ok", f"{sizes}, {len(dataset.test)} test examples")


def get(loader: Loader, data_dir: Path, progress: bool) -> Status:
    """Fetch the files that are missing, then `check`.

    Raises:
        InputError: a file could not be fetched; see `fedexp.data.download.fetch`.
    """
    for file in loader.files(data_dir):
        fetch(file, progress)
    return check(loader, data_dir)
