"""Which trial of an optimising sweep is named the best."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from fedexp.commands.run import _follow_the_objective
from fedexp.reporting.sweep_report import report_sweep
from fedexp.reporting.trials import trials_markdown
from tests.support.run_folders import write_run
from tests.support.sweep_folders import load

VALUES = {0.1: 0.6, 0.5: 0.9, 1.0: 0.3}


def trials(folder: Path, sweeper: dict, objective: str = "accuracy", said: tuple = ()) -> Path:
    """Trials whose validation figure is known, and worst on the test part where it is best."""
    for lr, value in VALUES.items():
        run = write_run(
            folder / f"lr={lr}",
            rounds=1,
            config={"training.lr": lr, "objective": objective},
            final={"accuracy": 1 - value},
        )
        rows = (run / "metrics.csv").read_text().splitlines()
        kept = [row for row in rows if not row.startswith(f"1,validation,all,{objective},")]
        (run / "metrics.csv").write_text(
            "\n".join([*kept, f"1,validation,all,{objective},{value}", ""])
        )
        summary = (run / "summary.json").read_text()
        (run / "summary.json").write_text(summary.replace('"validation"', '"unused"'))
        (run / ".hydra").mkdir()
        hydra = {"hydra": {"sweeper": sweeper, "overrides": {"hydra": list(said)}}}
        OmegaConf.save(OmegaConf.create(hydra), run / ".hydra" / "hydra.yaml")
    return folder


@pytest.mark.parametrize(
    ("objective", "said", "best"),
    [
        ("accuracy", (), "lr=0.5, 0.9000"),
        ("loss", (), "lr=1.0, 0.3000"),
        ("accuracy", ("hydra.sweeper.direction=minimize",), "lr=1.0, 0.3000"),
    ],
)
def test_the_best_is_best_by_the_objective_on_validation(tmp_path, objective, said, best):
    trials(tmp_path, {"direction": "minimize"}, objective, said)
    text = trials_markdown(load(tmp_path))
    assert text.startswith(f"Best of 3 trials by validation {objective}")
    assert best in text.splitlines()[0]
    order = [line.split("|")[2].strip() for line in text.splitlines()[4:]]
    assert order == (["0.5", "0.1", "1.0"] if "0.9000" in best else ["1.0", "0.1", "0.5"])


@pytest.mark.usefixtures("real_pictures")
def test_a_sweeps_page_has_it_only_where_something_was_optimised(tmp_path):
    assert "Best of 3 trials" in report_sweep([trials(tmp_path / "a", {"direction": None})])
    assert "Best of" not in report_sweep([trials(tmp_path / "b", {"params": {}})])


@pytest.mark.parametrize(
    ("objective", "said", "direction"),
    [
        ("accuracy", [], "maximize"),
        ("loss", [], "minimize"),
        ("accuracy", ["hydra.sweeper.direction=minimize"], "minimize"),
    ],
)
def test_a_sweeper_goes_where_the_objective_is_better(objective, said, direction):
    sweeper = {"_target_": "anybodys.Sweeper", "direction": "minimize"}
    hydra = {"sweeper": sweeper, "overrides": {"hydra": said}}
    config = OmegaConf.create({"objective": objective, "hydra": hydra})
    OmegaConf.set_readonly(config, True)
    _follow_the_objective(config)
    assert config.hydra.sweeper.direction == direction


def test_a_sweeper_without_a_direction_is_left_alone():
    config = OmegaConf.create(
        {"objective": "loss", "hydra": {"sweeper": {"params": {}}, "overrides": {"hydra": []}}}
    )
    _follow_the_objective(config)
    assert "direction" not in config.hydra.sweeper
