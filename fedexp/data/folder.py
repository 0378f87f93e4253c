"""Where the data files lie."""

from __future__ import annotations

import os
from pathlib import Path


def data_folder(configured: str | None) -> Path:
    """The folder that holds every collection, as an absolute path; it need not exist yet.

    The first of: `configured` (the config's value), the environment variable FEDEXP_DATA_DIR, the
    user's cache folder. An empty text counts as not given.

    >>> data_folder("/scratch/images").as_posix()
    '/scratch/images'
    """
    chosen = configured or os.environ.get("FEDEXP_DATA_DIR")
    if chosen:
        return Path(chosen).expanduser().absolute()

    from platformdirs import user_cache_path

    return user_cache_path("fedexp") / "data"
