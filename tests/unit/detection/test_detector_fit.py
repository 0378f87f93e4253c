"""Fitting to honest rounds: who is found, how rare alarms are, and where the threshold lies."""

import math

import pytest
import torch

from fedexp.core.checks import InputError
from fedexp.detection.fitted import COPIES, LEAST_ROWS, calibrate, fit
from fedexp.detection.norm import Norm
from tests.support.detecting import P, each_scorer, honest_round, rows


@each_scorer
def test_a_fitted_detector_finds_flipped_rows_of_a_round_by_itself(scorer):
    fitted = fit(scorer, (honest_round(r).matrix for r in range(8)), 0.99, seed=0)
    assert (fitted.d, fitted.rows, fitted.by_client) == (400, 160, False)
    matrix = honest_round(9).matrix.clone()
    matrix[:4] *= -1 if scorer != Norm() else 5
    flagged = fitted.flag(fitted.score(matrix))
    assert flagged[:4].all()
    assert flagged[4:].sum() <= 1


@each_scorer
def test_false_alarms_are_as_rare_as_the_quantile_says(scorer):
    fitted = fit(scorer, (honest_round(r) for r in range(10)), 0.9, seed=0)
    memory, alarms = fitted.start(), 0
    for r in range(10, 40):
        given = honest_round(r)
        scores, memory = fitted.score_round(given.matrix, given.client_ids, memory)
        alarms += int(fitted.flag(scores).sum())
    assert alarms <= 0.1 * 600


def test_the_threshold_is_an_order_statistic_of_held_out_scores():
    features = [rows(20, P, seed=r) for r in range(5)]
    thresholds = [calibrate(Norm(), features, q, 0)[1] for q in (0.1, 0.5, 0.9, 1.0)]
    assert thresholds == sorted(thresholds)
    # Norm of normal numbers: half of |x| / 1.4826 MAD lie below 0.6745.
    assert thresholds[1] == pytest.approx(0.6745, abs=0.1)


def test_with_few_rows_the_threshold_is_the_largest_score():
    features = [rows(LEAST_ROWS, P)]
    _, highest = calibrate(Norm(), features, 1.0, 0)
    _, unreachable = calibrate(Norm(), features, 1 - 0.1 / (COPIES * LEAST_ROWS + 1), 0)
    assert unreachable == highest


def test_folds_go_by_client_and_none_is_scored_by_a_fit_that_saw_it():
    seen = []

    class Recorder:
        sketch_size = 0

        def fit(self, features, seed):
            return {"places": features[:, -1].unique()}

        def score(self, features, fitted):
            seen.append(bool(torch.isin(features[:, -1], fitted["places"]).any()))
            return torch.zeros(len(features), dtype=torch.float64)

    places = torch.zeros(12, P)
    places[:, -1] = torch.arange(12)  # the last column names the client
    calibrate(Recorder(), [places, places, places], 0.99, 0)
    assert seen == [False] * 4


def test_too_few_rows_are_refused_with_the_numbers():
    with pytest.raises(InputError, match="at least 8 honest updates to learn from, not 5"):
        fit(Norm(), [rows(5, 10)], 0.99, 0)
    with pytest.raises(InputError, match="at least 8 honest updates to learn from, not 0"):
        fit(Norm(), [], 0.99, 0)
    with pytest.raises(InputError, match="rows of 11 numbers among rows of 10"):
        fit(Norm(), [rows(5, 10), rows(5, 11)], 0.99, 0)
    with pytest.raises(InputError, match=r"quantile=1\.5"):
        fit(Norm(), [rows(9, 10)], 1.5, 0)


@pytest.mark.parametrize("rounds", [[20], [1] * 20, [3, 0, 9, 2]])
@each_scorer
def test_rounds_of_any_size_can_be_learned_from(scorer, rounds):
    fitted = fit(scorer, [rows(n, 50, seed=k) + 1 for k, n in enumerate(rounds)], 0.99, 0)
    assert math.isfinite(fitted.threshold)
    assert fitted.rows == sum(rounds)
    assert fitted.score(rows(1, 50)).isfinite().all()
    assert fitted.score(torch.zeros(0, 50)).shape == (0,)


def test_rows_that_cannot_be_counted_are_left_out_and_as_suspicious_as_can_be():
    rounds = [rows(9, 50, seed=k) + 1 for k in range(4)]
    expected = fit(Norm(), [matrix[1:] for matrix in rounds], 0.99, 0)
    for matrix in rounds:
        matrix[0] = torch.nan
    fitted = fit(Norm(), rounds, 0.99, 0)
    assert (fitted.threshold, fitted.rows) == (expected.threshold, 32)
    scores = fitted.score(rounds[0])
    assert fitted.flag(scores)[0]
    assert torch.equal(scores[1:], expected.score(rounds[0][1:]))
