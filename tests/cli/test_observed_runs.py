"""Trackers hold what the record holds; a broken one changes nothing; early stopping and resume."""

import json
import os
import shutil

import pytest
import torch

from fedexp.commands.cli import run_command
from fedexp.core.metric import Metric
from fedexp.observers.series import by_round, leaves
from fedexp.run_folder.documents import read_config
from tests.support.commands import (
    FILES_OF_EQUAL_RUNS,
    assert_same_bits,
    fedexp,
    kill,
    rows_of,
    start_to_kill,
    summary_of,
    wait_for_round,
)
from tests.support.wandb_files import offline_run

pytestmark = pytest.mark.usefixtures("without_pictures")
SMALL = ("rounds=4", "training.epochs=1", "quiet=true", "plots=false")
TRACKERS = "tracker=[tensorboard,mlflow,wandb]"
PATIENT = ("rounds=60", "training.lr=0.3", "early_stopping.patience=4", "quiet=true", "plots=false")


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    """A run under three trackers, interrupted by nobody, in a process with an empty home."""
    folder = tmp_path_factory.mktemp("tracked")
    home = folder / "home"
    home.mkdir()
    # Whoever reaches for the network finds a proxy that is not there.
    nowhere = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
    done = fedexp(
        *("run", *SMALL, TRACKERS, "tracker.tensorboard.clients=true"),
        f"hydra.run.dir={folder / 'run'}",
        env={"HOME": str(home), "XDG_CONFIG_HOME": "", "XDG_CACHE_HOME": "", **nowhere},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert list(home.rglob("*")) == []
    return folder / "run"


def recorded(folder, clients=False):
    """{(round, name): value} of metrics.csv, under the trackers' names."""
    rows = [Metric(*row[:4], float("nan") if row[4] is None else row[4]) for row in rows_of(folder)]
    return {
        (number, name): value
        for number, figures in by_round(rows, clients)
        for name, value in figures.items()
    }


def test_tensorboard_holds_the_record(tracked):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tracked / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    held = {
        (event.step, name): event.value
        for name in events.Tags()["scalars"]
        for event in events.Scalars(name)
    }
    expected = recorded(tracked, clients=True)
    assert any("client" in name for _, name in expected)
    assert held.keys() == expected.keys()
    for key, value in expected.items():
        assert held[key] == pytest.approx(value, rel=1e-6), key  # it keeps float32
    text = events.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    config = json.loads(text.removeprefix("```json\n").removesuffix("\n```"))
    assert config == read_config(tracked)


def test_mlflow_holds_the_record(tracked, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=(tracked / "mlruns").as_uri())
    (run,) = client.search_runs([client.get_experiment_by_name("fedexp").experiment_id])
    assert run.info.status == "FINISHED"
    held = {
        (point.step, name): point.value
        for name in run.data.metrics
        for point in client.get_metric_history(run.info.run_id, name)
    }
    assert held == recorded(tracked)
    config = leaves(read_config(tracked))
    assert run.data.params == {k.replace("/", "."): str(v) for k, v in config.items()}


def test_wandb_holds_the_record(tracked):
    (path,) = (tracked / "wandb").glob("offline-run-*/*.wandb")
    config, rows = offline_run(path)
    assert {(step, name): value for step, name, value in rows} == recorded(tracked)
    assert {k: v for k, v in config.items() if k != "_wandb"} == read_config(tracked)


def test_a_run_is_the_same_with_and_without_trackers(here, tracked):
    def is_the_same():
        return all(
            (here / "run" / name).read_bytes() == (tracked / name).read_bytes()
            for name in FILES_OF_EQUAL_RUNS
        )

    assert run_command(["run", *SMALL, "hydra.run.dir=run"]) == 0
    assert is_the_same()
    # ... and another tracker does not make it another run, where it has rounds to come.
    summary = summary_of(here / "run")
    (here / "run" / "summary.json").write_text(json.dumps({**summary, "status": "running"}))
    shutil.rmtree(here / "run" / "checkpoints")
    assert run_command(["resume", "run", "tracker=tensorboard"]) == 0
    assert (here / "run" / "tensorboard").is_dir()
    assert is_the_same()


@pytest.mark.parametrize("at", ["start", "round", "end"])
def test_a_broken_tracker_changes_nothing(here, capfd, at):
    own = here / "conf" / "tracker"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text(
        f"# Mine\nmine:\n  _target_: tests.support.watching.Broken\n  at: {at}\n"
    )
    small = ("rounds=2", *SMALL[1:])
    assert run_command(["run", *small, "hydra.run.dir=without"]) == 0
    capfd.readouterr()
    broken = ("tracker=mine", "trust=[tests.]")
    assert run_command(["run", *small, *broken, "hydra.run.dir=with"]) == 0
    said, errors = capfd.readouterr()
    assert said == ""
    assert errors.count("\n") == 1
    assert errors.startswith("tracker=mine has failed and is left out from here on (OSError")
    assert summary_of(here / "with")["status"] == "complete"
    for name in ("metrics.csv", "model.safetensors"):
        assert (here / "with" / name).read_bytes() == (here / "without" / name).read_bytes()


@pytest.mark.parametrize("group", ["tracker", "early_stopping"])
def test_an_observer_that_writes_to_what_it_is_shown_changes_nothing(here, group):
    own = here / "conf" / group
    own.mkdir(parents=True)
    node = "_target_: tests.support.watching.Writes\n"
    (own / "mine.yaml").write_text("mine:\n  " * (group == "tracker") + node)
    small = ("rounds=3", "server_optimizer=momentum", *SMALL[1:])
    assert run_command(["run", *small, "hydra.run.dir=without"]) == 0
    mine = (f"{group}=mine", "trust=[tests.]")
    assert run_command(["run", *small, *mine, "hydra.run.dir=with"]) == 0
    for name in ("metrics.csv", "model.safetensors"):
        assert (here / "with" / name).read_bytes() == (here / "without" / name).read_bytes()
    assert summary_of(here / "with")["privacy"] is None


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["tracker=tensorbord"], "tracker=tensorbord: did you mean tensorboard?"),
        (["tracker=[mlflow,tensorbord]"], "tensorbord: did you mean tensorboard?"),
        (["tracker=wandb", "tracker.wandb.mode=on"], "tracker.wandb.mode=on: must be one of"),
        (["tracker=wandb", "tracker.wandb.entity=me"], "tracker.wandb.entity"),
        (["early_stopping.patience=0"], "early_stopping.patience=0: must be a whole number"),
        (["early_stopping.metric=test_auc"], "early_stopping.metric=test_auc: did you mean auc?"),
    ],
)
def test_what_cannot_be_observed_is_refused_before_the_run(here, capfd, overrides, expected):
    assert run_command(["run", *overrides, "hydra.run.dir=never"]) == 2
    assert expected in capfd.readouterr().err
    assert os.listdir(here) == []


@pytest.fixture(scope="module")
def stopped_early(tmp_path_factory):
    """A run that stopped by itself before its last round."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["fedexp"])
        assert run_command(["run", *PATIENT, f"hydra.run.dir={folder}"]) == 0
    return folder


def accuracies(folder):
    return [row[4] for row in rows_of(folder) if row[1:4] == ("validation", "all", "accuracy")]


def test_early_stopping_ends_a_run_and_says_why(stopped_early):
    summary, measured = summary_of(stopped_early), accuracies(stopped_early)
    best = measured.index(max(measured)) + 1
    assert summary["status"] == "complete"
    assert summary["rounds"] == len(measured) == best + 4 < 60
    assert summary["stopped"].startswith(
        "validation accuracy has not got better in 4 evaluations (early_stopping.patience=4)"
    )
    assert f"was in round {best}" in summary["stopped"]
    checkpoints = {path.name for path in (stopped_early / "checkpoints").glob("*.pt")}
    assert {"best.pt", f"round-{len(measured):06d}.pt"} <= checkpoints
    assert torch.load(stopped_early / "checkpoints" / "best.pt", weights_only=True)["round"] == best
    assert "Stopped early: validation accuracy" in (stopped_early / "report.md").read_text()


def test_a_killed_run_stops_at_the_same_round(here, stopped_early):
    process = start_to_kill("run", *PATIENT, "hydra.run.dir=killed")
    wait_for_round(process, here / "killed", summary_of(stopped_early)["rounds"] - 2)
    kill(process)
    assert run_command(["resume", "killed"]) == 0
    assert_same_bits(here / "killed", stopped_early)


def test_a_run_that_died_before_it_said_that_it_stopped_makes_no_more_rounds(here, stopped_early):
    shutil.copytree(stopped_early, here / "run")
    summary = summary_of(here / "run")
    del summary["stopped"]
    (here / "run" / "summary.json").write_text(json.dumps({**summary, "status": "running"}))
    assert run_command(["resume", "run"]) == 0
    assert_same_bits(here / "run", stopped_early)


def test_the_last_state_is_saved_where_a_run_stops_between_checkpoints(here, stopped_early):
    assert run_command(["run", *PATIENT, "checkpoint_every=1000", "hydra.run.dir=run"]) == 0
    name = "model.safetensors"
    assert (here / "run" / name).read_bytes() == (stopped_early / name).read_bytes()
    assert len(list((here / "run" / "checkpoints").glob("round-*.pt"))) == 1


def test_early_stopping_decides_results_and_cannot_be_changed_later(here, stopped_early, capfd):
    shutil.copytree(stopped_early, here / "run")
    assert run_command(["resume", "run", "early_stopping.patience=9"]) == 2
    assert "would change the results of the run" in capfd.readouterr().err
