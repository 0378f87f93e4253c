"""The names under which trackers hold the record, and what an absent package says."""

import pytest

from fedexp.core.checks import InputError
from fedexp.core.metric import Metric
from fedexp.observers import series
from fedexp.observers.mlflow import MLflow
from fedexp.observers.tensorboard import TensorBoard
from fedexp.observers.wandb import WandB

ROWS = [
    Metric(1, "test", "all", "accuracy", 0.5),
    Metric(1, "test", "mean", "accuracy", 0.4),
    Metric(1, "test", "3", "accuracy", 0.3),
    Metric(1, "test", "all", "auc", float("nan")),
    Metric(2, "test", "all", "accuracy", 0.6),
]


def test_names_and_rounds():
    assert dict(series.by_round(ROWS, clients=True)) == {
        1: {"test/accuracy": 0.5, "test/accuracy_mean": 0.4, "test/accuracy_client3": 0.3},
        2: {"test/accuracy": 0.6},
    }


def test_single_clients_are_left_out_unless_asked_for():
    assert "test/accuracy_client3" not in series.figures(ROWS[:4], clients=False)


@pytest.mark.parametrize(
    ("make", "package"),
    [
        (lambda: TensorBoard(False), "tensorboard"),
        (lambda: MLflow(None, "fedexp", False), "mlflow"),
        (lambda: WandB("offline", "fedexp", False), "wandb"),
    ],
)
def test_an_absent_package_is_named_with_its_extra(monkeypatch, make, package):
    monkeypatch.setattr(series.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=rf"{package}.*pip install 'fedexp\[{package}\]'"):
        make()
