"""For tests of the command line: an empty folder to stand in, and runs to look at."""

import logging
import sys
from pathlib import Path

import pytest

from fedexp.commands.cli import run_command
from tests.support.commands import kill, start_to_kill, wait_for_round
from tests.support.pictures import blank_pictures, real_pictures  # noqa: F401
from tests.support.shared_folders import shared_folder

# Long enough to be killed in the middle, short enough to wait for.
SMALL_RUN = ("rounds=6", "training.epochs=3", "quiet=true", "backend.workers=1")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder: an empty one; without the user's own settings."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("FEDEXP_DATA_DIR", raising=False)
    monkeypatch.setattr(sys, "argv", ["fedexp"])
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield folder
    root.handlers[:] = handlers  # `--info` and shell completion leave Hydra's there
    root.setLevel(level)


@pytest.fixture
def without_pictures(monkeypatch):
    """Leaves the plots out, which take longer than a small run and have tests of their own."""
    monkeypatch.setattr("fedexp.reporting.plots.write_run_plots", lambda *asked: [])


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory) -> Path:
    """The folder of a run that nobody disturbed. Not to be changed."""

    def make(folder):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["fedexp"])
            assert run_command(["run", *SMALL_RUN, f"hydra.run.dir={folder}"]) == 0

    return shared_folder(tmp_path_factory, "whole", make)


@pytest.fixture(scope="session")
def killed_run(tmp_path_factory) -> Path:
    """The folder of the same run, killed in the middle of round 3. To be copied, not changed."""

    def make(folder):
        process = start_to_kill("run", *SMALL_RUN, f"hydra.run.dir={folder}")
        wait_for_round(process, folder, 2)
        kill(process)

    return shared_folder(tmp_path_factory, "killed", make)
