"""Where a run would lie, or its user stands, is no folder."""

import os

import pytest

from fedexp.commands.cli import run_command


def test_an_empty_name_is_not_the_current_folder(here, capfd):
    assert run_command(["run", "rounds=1", "hydra.run.dir="]) == 2
    assert "hydra.run.dir=: must name a folder" in capfd.readouterr().err
    assert run_command(["run", "-m", "seed=0,1", "rounds=1", "hydra.sweep.dir="]) == 2
    assert "hydra.sweep.dir=: must name a folder" in capfd.readouterr().err
    assert os.listdir() == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["report", ""],
        ["report", ".", "--out", ""],
        ["watch", ""],
        ["resume", ""],
        ["rerun", ""],
        ["leakage", "", "leakage=lira"],
        ["store", "--empty", ""],
        ["detect", "fit", "", "--out", "detector"],
    ],
    ids=" ".join,
)
def test_nor_is_it_for_the_other_commands(here, capfd, arguments):
    assert run_command(arguments) == 2
    assert "must name a file or a folder (. is the current one)" in capfd.readouterr().err


def test_a_folder_that_is_gone_is_named(here, capfd, monkeypatch):
    (here / "gone").mkdir()
    monkeypatch.chdir("gone")
    monkeypatch.setenv("PWD", str(here / "gone"))
    (here / "gone").rmdir()
    assert run_command(["list", "model"]) == 2
    line = capfd.readouterr().err
    assert line.startswith(f"fedexp: current folder={here / 'gone'}: is not there any more")
