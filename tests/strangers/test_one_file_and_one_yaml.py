"""A mechanism, channel, setting, trainer or backend of a stranger's: one file and one YAML."""

import json
from pathlib import Path

import pytest

from fedexp.commands.cli import run_command
from tests.cli.conftest import here  # noqa: F401 - an empty folder to stand in

CONF = Path(__file__).parent / "conf"


def run(folder, *overrides):
    small = ("rounds=2", "model.hidden=[8]", "quiet=true", "plots=false", "trust=[tests.]")
    place = f"hydra.run.dir={folder}"
    return run_command(["run", "--config-dir", str(CONF), *small, *overrides, place])


@pytest.mark.parametrize("group", ["privacy", "channel", "setting", "training", "backend"])
def test_it_runs(here, group):  # noqa: F811
    assert run(here / "run", f"{group}=mine") == 0
    summary = json.loads((here / "run" / "summary.json").read_text())
    assert summary["status"] == "complete"
    assert summary["choices"][group] == "mine"
    assert (summary["privacy"] is not None) == (group == "privacy")


def test_what_it_promises_is_in_the_statement(here):  # noqa: F811
    assert run(here / "run", "privacy=mine") == 0
    statement = json.loads((here / "run" / "summary.json").read_text())["privacy"]
    assert statement["mechanism"] == "randomised signs"
    assert statement["epsilon"] == pytest.approx(2 * 610 * 2.1972245773362196, rel=1e-9)


def test_what_it_does_not_promise_is_refused(here, capsys):  # noqa: F811
    assert run(here / "run", "setting=mine", "attack=sign_flip") == 2
    assert "attack.n_malicious=2: needs setting=federated" in capsys.readouterr().err
    assert run(here / "run", "training=mine", "privacy=dp_sgd") == 2
    assert "makes its own gradients, which DP-SGD cannot replace" in capsys.readouterr().err
    assert not (here / "run").exists()
