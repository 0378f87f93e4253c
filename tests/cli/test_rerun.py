"""A run once more: the same again, or said where it is not."""

import pytest

from fedexp.commands.cli import run_command
from fedexp.run_folder.documents import read_config

pytestmark = pytest.mark.usefixtures("without_pictures")
SMALL = ("rounds=1", "training.epochs=1", "quiet=true")


def test_a_run_comes_out_the_same_and_with_other_settings_otherwise(here, capfd):
    assert run_command(["run", *SMALL, "partition.alpha=1", "hydra.run.dir=run"]) == 0
    capfd.readouterr()
    assert run_command(["rerun", "run", "hydra.run.dir=again", "quiet=true"]) == 0
    assert capfd.readouterr().out.startswith("The same bits as run")
    assert read_config(here / "again")["partition"]["alpha"] == 1

    assert run_command(["rerun", "run", "seed=1", "hydra.run.dir=other", "quiet=true"]) == 0
    assert "same" not in capfd.readouterr().out
    assert read_config(here / "other")["seed"] == 1

    text = (here / "run/metrics.csv").read_text()
    row = next(line for line in text.splitlines() if line.startswith("1,test,all,accuracy,"))
    (here / "run/metrics.csv").write_text(text.replace(row, "1,test,all,accuracy,0.999"))
    assert run_command(["rerun", "run", "hydra.run.dir=third", "quiet=true"]) == 1
    said = capfd.readouterr().out
    assert "1 of " in said
    assert "round 1, test accuracy of all: 0.999 then" in said


def test_a_strangers_folder_gives_words_and_no_trust(here, capfd):
    assert run_command(["rerun", "nowhere"]) == 2
    (here / "theirs").mkdir()
    (here / "theirs/config.yaml").write_text("trust: [evil.]\noverrides: []\nseed: 0\n")
    assert run_command(["rerun", "theirs"]) == 2
    assert "trust=[evil.]" in capfd.readouterr().err


def test_noise_that_nobody_has_twice_is_the_reason_that_is_given(here, capfd):
    noisy = ("privacy=local_gaussian", "privacy.noise_seed=os")
    assert run_command(["run", *SMALL, *noisy, "hydra.run.dir=run"]) == 0
    capfd.readouterr()
    assert run_command(["rerun", "run", "hydra.run.dir=again", "quiet=true"]) == 1
    said = capfd.readouterr().out
    assert "Noise comes from the operating system: the run cannot be repeated" in said
    assert "another processor" not in said
