"""Where matplotlib keeps its list of fonts: in the home only where it has folders there already.

On its own it makes folders in the home of whoever draws a picture, and warns where it cannot. Here
that a picture is drawn is a by-product of a run, so a home that matplotlib has no folders in, or
cannot write, stays as it is: the list lives in a temporary folder until the process ends. Who uses
matplotlib keeps their settings and their list of fonts, which takes a second to make.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

SETTING = "MPLCONFIGDIR"  # matplotlib's own; processes started from here inherit it


def keep_the_list_of_fonts() -> None:
    """Name a temporary folder in the environment, unless matplotlib has a place of its own."""
    if os.environ.get(SETTING) or "matplotlib" in sys.modules or _has_its_folders():
        return
    folder = tempfile.mkdtemp(prefix="fedexp-fonts-")
    os.environ[SETTING] = folder
    atexit.register(shutil.rmtree, folder, ignore_errors=True)


def _has_its_folders() -> bool:
    try:
        home = Path.home()
    except RuntimeError:  # nobody knows where it is
        return False
    if sys.platform.startswith(("linux", "freebsd")):
        settings = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "matplotlib"
        fonts = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "matplotlib"
        return all(folder.is_dir() and os.access(folder, os.W_OK) for folder in (settings, fonts))
    places = [home / ".matplotlib", Path(os.environ.get("LOCALAPPDATA", home)) / "matplotlib"]
    return any(folder.is_dir() and os.access(folder, os.W_OK) for folder in places)
