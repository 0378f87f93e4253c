"""What `summary.json` says, from rows put together by hand."""

import math

import pytest

from fedexp.core.metric import Metric
from fedexp.run_folder.scores import Scores


def evaluation(round, **values):
    """Rows of one round: test_accuracy=0.5 is the shared model's accuracy on test."""
    rows = []
    for name, value in values.items():
        scope, _, metric = name.partition("_")
        rows.append(Metric(round, scope, "all", metric, value))
    return rows


def scores_of(*rounds):
    scores = Scores()
    for rows in rounds:
        scores.add(rows, seconds=2.0, train_seconds=1.0)
    return scores


def test_final_is_the_last_evaluation_not_the_last_round():
    scores = scores_of(
        evaluation(1, test_accuracy=0.9, validation_loss=1.0),
        evaluation(2, test_accuracy=0.5, validation_loss=2.0),
        [Metric(3, "train", "all", "loss", 0.1)],
    )
    document = scores.document()
    assert document["final"] == {"test": {"accuracy": 0.5}, "validation": {"loss": 2.0}}
    assert document["rounds"] == 3
    assert scores.latest("test", "accuracy") == 0.5
    assert math.isnan(scores.latest("test", "f1"))


def test_mean_last_5_are_evaluations():
    rounds = [evaluation(r, test_accuracy=float(r)) for r in range(1, 8)]
    rounds.insert(6, [Metric(6, "train", "all", "loss", 0.0)])
    assert scores_of(*rounds).document()["mean_last_5"] == {"test": {"accuracy": 5.0}}


def test_what_not_all_evaluations_have_has_no_mean_over_them():
    scores = scores_of(
        evaluation(1, test_accuracy=0.2), evaluation(2, test_accuracy=0.4, test_f1=1)
    )
    assert scores.document()["mean_last_5"] == {"test": {"accuracy": pytest.approx(0.3)}}


def test_mean_last_5_of_fewer_is_over_those_there_are():
    scores = scores_of(evaluation(1, test_accuracy=0.2), evaluation(2, test_accuracy=0.4))
    assert scores.document()["mean_last_5"]["test"]["accuracy"] == pytest.approx(0.3)


def test_means_over_the_last_rounds_are_over_the_evaluations_in_them():
    scores = scores_of(
        evaluation(2, test_accuracy=0.2),
        evaluation(4, test_accuracy=0.4),
        evaluation(6, test_accuracy=0.6),
        [Metric(7, "round", "all", "examples", 10.0)],
    )
    # Rounds 4 to 7, and 5 to 7.
    assert scores.document(4)["mean_last_rounds"]["test"]["accuracy"] == pytest.approx(0.5)
    assert scores.document(3)["mean_last_rounds"]["test"]["accuracy"] == pytest.approx(0.6)
    assert scores.document(1)["mean_last_rounds"] == {}
    assert "mean_last_rounds" not in scores.document()


def test_before_the_first_evaluation_nothing_is_said():
    scores = scores_of([Metric(1, "round", "all", "examples", 10.0)])
    assert scores.document()["final"] == scores.document()["mean_last_5"] == {}
    assert scores.best_round("accuracy") is None
    assert math.isnan(scores.latest("validation", "accuracy"))
    assert Scores().document()["examples_per_second"] is None


def test_the_best_round_is_the_first_of_the_highest():
    accuracies = [0.5, 0.8, 0.7, 0.8, math.nan]
    rounds = [
        evaluation(2 * r, validation_accuracy=a, test_accuracy=1 - a)
        for r, a in enumerate(accuracies, start=1)
    ]
    assert scores_of(*rounds).best_round("accuracy") == 4


def test_a_loss_is_best_when_low():
    rounds = [
        evaluation(r, validation_loss=v) for r, v in enumerate([3.0, 1.0, 1.0, 2.0, math.inf], 1)
    ]
    assert scores_of(*rounds).best_round("loss") == 2


def test_the_best_round_is_chosen_on_validation_only():
    scores = scores_of(
        evaluation(1, validation_accuracy=0.6, test_accuracy=0.1),
        evaluation(2, validation_accuracy=0.5, test_accuracy=0.9),
        evaluation(3, test_accuracy=1.0),
    )
    assert scores.best_round("accuracy") == 1


def test_of_clients_own_models_the_mean_counts_and_the_spread_is_kept():
    rows = [
        Metric(1, "test", client, "accuracy", value)
        for client, value in {"0": 0.9, "mean": 0.5, "std": 0.1, "min": 0.2, "max": 0.9}.items()
    ]
    document = scores_of(rows).document()
    assert document["final"] == {"test": {"accuracy": 0.5}}
    assert document["final_over_clients"] == {
        "test": {"accuracy": {"mean": 0.5, "std": 0.1, "min": 0.2, "max": 0.9}}
    }


def test_a_clients_number_under_the_shared_model_does_not_replace_it():
    rows = [
        *evaluation(1, test_accuracy=0.7),
        Metric(1, "test", "0", "accuracy", 0.1),
        Metric(1, "train", "all", "accuracy", 0.2),
    ]
    assert scores_of(rows).document()["final"]["test"]["accuracy"] == 0.7


def test_bytes_examples_and_seconds_add_up():
    def work(round, examples):
        return [
            Metric(round, "round", "all", "examples", examples),
            Metric(round, "round", "all", "bytes_up", 8.0),
            Metric(round, "round", "all", "bytes_down", 16.0),
            Metric(round, "round", "all", "clients", 3.0),
        ]

    document = scores_of(work(1, 100.0), work(2, 50.0)).document()
    assert (document["bytes_up"], document["bytes_down"], document["examples"]) == (16, 32, 150)
    assert document["seconds"] == 4.0
    assert document["examples_per_second"] == pytest.approx(150 / 2)
    assert isinstance(document["examples"], int)
