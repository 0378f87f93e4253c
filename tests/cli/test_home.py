"""Nothing needs the user's home, and nothing is written there."""

import os
import subprocess
import sys

import pytest

EVERYTHING = """
import sys, fedexp
from pathlib import Path
from fedexp.commands.cli import main
sys.argv = ["fedexp"]
assert main(["list"]) == 0
assert main(["data", "check"]) == 0
assert main(["run", "debug=fast", "plots=false", "hydra.run.dir=run"]) == 0
from fedexp.reporting.figures import new_figure, save
save(new_figure(2, 1, "a picture with letters"), Path("picture.png"))
"""
# Where a home is looked for; `MPLCONFIGDIR` is matplotlib's.
PLACES = ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "MPLCONFIGDIR")


@pytest.mark.parametrize("home", ["an empty folder", "no folder"])
def test_commands_leave_the_home_alone(here, home):
    folder = here / "home"
    folder.mkdir()
    # Also who may write everywhere, as root may, can make no folder below a device.
    place = folder if home == "an empty folder" else "/dev/null/nobody"
    outside = {name: value for name, value in os.environ.items() if name not in PLACES}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", EVERYTHING],
        env={**outside, "HOME": str(place)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert list(folder.iterdir()) == []


def test_a_list_of_fonts_that_is_there_is_kept(tmp_path, monkeypatch):
    from fedexp.reporting.fonts import SETTING, keep_the_list_of_fonts

    monkeypatch.delitem(sys.modules, "matplotlib", raising=False)
    for name in PLACES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for folder in (".config", ".cache", ".matplotlib"):
        (tmp_path / folder / "matplotlib").mkdir(parents=True)
    keep_the_list_of_fonts()
    assert SETTING not in os.environ


def test_a_place_that_the_user_named_is_kept(tmp_path, monkeypatch):
    from fedexp.reporting.fonts import SETTING, keep_the_list_of_fonts

    monkeypatch.delitem(sys.modules, "matplotlib", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(SETTING, "/a/place")
    keep_the_list_of_fonts()
    assert os.environ[SETTING] == "/a/place"
