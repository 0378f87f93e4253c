"""Patience by hand: when it ends a run, and that a resumed run does not forget."""

import math

import pytest

from fedexp.core.checks import InputError
from fedexp.observers.early_stopping import EarlyStopping
from fedexp.tasks.multiclass import Multiclass
from tests.support.watching import round_of, start_of

METRICS = Multiclass.metrics


def stops_at(values, patience, metric="accuracy", min_delta=0.0):
    """The number of the round at which a run with these figures stops; None: it does not."""
    rule = EarlyStopping(patience, metric, min_delta, METRICS)
    assert rule.run_started(start_of(None)) is None
    for number, value in enumerate(values, start=1):
        measured = {} if value is None else {metric: value}
        if rule.round_done(*round_of(number, **measured)):
            return number
    return None


@pytest.mark.parametrize(
    ("values", "patience", "stop"),
    [
        ([0.5, 0.6, 0.6, 0.6], 2, 4),  # equal is not better
        ([0.5, 0.6, 0.6, 0.7, 0.7], 2, None),
        ([0.5, 0.4], 1, 2),
        ([0.5, None, None, 0.4, None, 0.4], 2, 6),  # evaluations are counted, not rounds
        ([math.nan, math.nan], 2, 2),
        ([math.nan, 0.1, 0.05, 0.2], 2, None),
        ([0.1] * 50, None, None),
        ([0.9, 0.1, 0.2, 0.3], 3, 4),  # against the best, not against the one before
    ],
)
def test_the_round_at_which_it_stops(values, patience, stop):
    assert stops_at(values, patience) == stop


def test_a_loss_is_better_when_low():
    assert stops_at([2.0, 1.0, 1.5, 1.2], 2, "loss") == 4
    assert stops_at([2.0, 1.5, 1.0, 0.5], 2, "loss") is None


def test_gains_up_to_min_delta_do_not_count():
    assert stops_at([0.5, 0.55, 0.6], 2, min_delta=0.2) == 3
    assert stops_at([0.5, 0.8, 0.6], 2, min_delta=0.2) is None


def test_the_reason_names_the_metric_and_its_best_round():
    rule = EarlyStopping(1, "loss", 0.0, METRICS)
    rule.run_started(start_of(None))
    rule.round_done(*round_of(1, loss=0.25))
    reason = rule.round_done(*round_of(2, loss=0.5))
    assert reason == (
        "validation loss has not got better in 1 evaluations (early_stopping.patience=1); "
        "its best, 0.25, was in round 1"
    )


def test_what_was_recorded_counts_when_a_run_goes_on():
    values = [0.5, 0.6, 0.55, 0.58, 0.59]
    for done in range(len(values) + 1):
        recorded = [
            row
            for number, value in enumerate(values[:done], start=1)
            for row in round_of(number, accuracy=value)[1].metrics
        ]
        rule = EarlyStopping(3, "accuracy", 0.0, METRICS)
        stopped = done if rule.run_started(start_of(None, {}, done, recorded)) else None
        for number in range(done + 1, len(values) + 1):
            if rule.round_done(*round_of(number, accuracy=values[number - 1])):
                stopped = number
        assert stopped == 5, done


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ((0, "accuracy", 0.0), "patience=0"),
        ((3, "test_accuracy", 0.0), "metric=test_accuracy"),
        ((3, "accuracy", -0.1), "min_delta=-0.1"),
    ],
)
def test_wrong_arguments_are_refused(arguments, key):
    with pytest.raises(InputError, match=key):
        EarlyStopping(*arguments, METRICS)
