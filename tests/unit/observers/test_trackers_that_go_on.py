"""A tracker that goes on with a run holds every round once, whatever its earlier part had."""

import pytest

from fedexp.observers.mlflow import MLflow
from fedexp.observers.tensorboard import TensorBoard
from fedexp.observers.wandb import WandB
from tests.support.wandb_files import offline_run
from tests.support.watching import round_of, start_of

CONFIG = {"seed": 3, "training": {"lr": 0.1}}
SAVED = 2  # rounds in the newest checkpoint, of the 3 that the first process made


def accuracy(number):
    return number / 8  # a float32 too


EXPECTED = [(number, accuracy(number)) for number in range(1, 6)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def go_on_with(tracker, folder):
    """Three rounds and an interruption; then from the second round on, to the fifth."""
    tracker.run_started(start_of(folder, CONFIG))
    for number in (1, 2, 3):
        tracker.round_done(*round_of(number, accuracy=accuracy(number)))
    tracker.run_ended({"status": "interrupted"})
    recorded = [
        row for n in range(1, SAVED + 1) for row in round_of(n, accuracy=accuracy(n))[1].metrics
    ]
    tracker.run_started(start_of(folder, CONFIG, SAVED, recorded))
    for number in range(SAVED + 1, 6):
        tracker.round_done(*round_of(number, accuracy=accuracy(number)))
    tracker.run_ended({"status": "complete"})


def test_tensorboard(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    go_on_with(TensorBoard(clients=False), folder)
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("validation/accuracy")] == EXPECTED


@pytest.mark.parametrize("shared", [False, True])
def test_mlflow(folder, monkeypatch, shared):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    from mlflow.tracking import MlflowClient

    uri = (folder.parent / "store").as_uri() if shared else None
    go_on_with(MLflow(uri, "mine", clients=False), folder)
    client = MlflowClient(tracking_uri=uri or (folder / "mlruns").as_uri())
    (run,) = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    points = client.get_metric_history(run.info.run_id, "validation/accuracy")
    assert [(p.step, p.value) for p in points] == EXPECTED
    assert run.data.params == {"seed": "3", "training.lr": "0.1"}


def test_wandb(folder):
    go_on_with(WandB("offline", "mine", clients=False), folder)
    (path,) = (folder / "wandb").glob("offline-run-*/*.wandb")
    config, rows = offline_run(path)
    assert rows == [(number, "validation/accuracy", value) for number, value in EXPECTED]
    assert CONFIG.items() <= config.items()
