"""Consistency with the cohort and with oneself, against loops typed from the docstring."""

import math
import statistics

import numpy as np
import pytest
import torch
from scipy.stats import norm

from fedexp.core.checks import InputError
from fedexp.core.types import Updates
from fedexp.detection.consistency import Consistency
from fedexp.detection.features import DECAY, shorten

SIZE, D = 64, 200


def detector(**changes):
    given = {"false_alarm_rate": 0.01, "sketch_size": SIZE, "action": "drop", "seed": 0}
    return Consistency(**{**given, **changes})


def rng():
    return np.random.default_rng(0)


def cohort(round, n=10, agree=0.5, flipped=(), own=0.0):
    """Rows with a shared part, a part of their own that stays, and noise."""
    g = torch.Generator().manual_seed(1000 + round)
    shared = torch.randn(D, generator=g)
    habits = torch.randn(n, D, generator=torch.Generator().manual_seed(7))
    rows = agree * shared + own * habits + torch.randn(n, D, generator=g)
    rows[list(flipped)] *= -1
    return Updates(rows, tuple(range(n)), torch.ones(n, dtype=torch.float64))


def spread(values, floor):
    middle = statistics.median(values)
    return max(floor, 1.4826 * statistics.median(v - middle for v in values if v >= middle))


def naive(rounds):
    """Scores of the last round, by loops."""
    evidence, habits, scores, floor = {}, {}, [], 1 / math.sqrt(SIZE)
    z = norm.isf(0.005)
    for updates in rounds:
        units = shorten(updates.matrix, SIZE, 0).units.numpy()
        n = len(units)
        a = [
            statistics.median(float(units[k] @ units[j]) for j in range(n) if j != k)
            for k in range(n)
        ]
        w, s = max(0.0, statistics.median(a)), spread(a, floor)
        cosines = {
            k: float(units[k] @ habits[k]) / float(np.linalg.norm(habits[k]))
            for k in range(n)
            if k in habits
        }
        scores = []
        for k in range(n):
            before = evidence.get(k, (0.0, 0.0, 0.0))
            evidence[k] = (
                before[0] + w * a[k],
                before[1] + w**2 * s**2,
                before[2] + w**2,
            )
            score = min(
                -evidence[k][0] / math.sqrt(evidence[k][1]) / z,
                -evidence[k][0] / evidence[k][2] / 0.5,
            )
            if k in cosines:
                usual = statistics.median(cosines.values())
                against = min(0.0, usual) - cosines[k]
                own = min(
                    against / (z * spread(list(cosines.values()), floor)),
                    against / max(usual, floor) / 0.5,
                )
                score = max(score, own)
            scores.append(score)
        for k in range(n):
            if scores[k] <= 1:
                habits[k] = DECAY * habits.get(k, 0 * units[k]) + (1 - DECAY) * units[k]
    return scores


@pytest.mark.parametrize("flipped", [(), (3,)])
def test_the_scores_are_the_docstrings(flipped):
    rounds = [cohort(r, flipped=flipped, own=0.5) for r in range(4)]
    found, state = detector(), detector().init(D)
    for updates in rounds:
        verdict, state = found(updates, state, rng())
    np.testing.assert_allclose(verdict.scores.numpy(), naive(rounds), rtol=1e-4, atol=1e-4)
    assert verdict.threshold == 1


def test_a_flip_is_caught_in_the_first_round_and_ever_after():
    found, state = detector(), detector().init(D)
    for round in range(20):
        agree = 2.0 if round < 3 else 0.0  # later honest clients are strangers to each other
        updates = cohort(round, agree=agree, flipped=(0, 1), own=0.7)
        verdict, state = found(updates, state, rng())
        assert verdict.flagged.tolist() == [True, True] + [False] * 8
        assert verdict.trust.tolist() == [0, 0] + [1] * 8


def test_who_turns_when_nobody_agrees_any_more_is_held_to_its_own_past():
    found, state = detector(), detector().init(D)
    for round in range(12):
        turned = (4,) if round >= 8 else ()
        updates = cohort(round, agree=0.5 if round < 3 else 0.0, flipped=turned, own=1.5)
        verdict, state = found(updates, state, rng())
        assert verdict.flagged.nonzero().flatten().tolist() == list(turned)


@pytest.mark.parametrize("agree", [0.0, 0.05])
def test_the_rate_of_false_alarms_holds_where_rows_are_noise(agree):
    """Hardly anything shared, as under DP noise: the rate is that of the normal quantile."""
    alarms = total = 0
    for seed in range(8):
        found = detector(false_alarm_rate=0.05, seed=seed)
        state = found.init(D)
        for round in range(10):
            verdict, state = found(cohort(100 * seed + round, 20, agree), state, rng())
            alarms, total = alarms + int(verdict.flagged.sum()), total + 20
    assert 0 < alarms / total < 0.07  # 0.05, and three deviations of 1,600 draws


def test_a_cohort_that_turns_as_one_is_not_accused():
    found, state = detector(), detector().init(D)
    for round in range(6):
        updates = cohort(round, agree=0.0, own=2.0, flipped=range(10) if round == 5 else ())
        verdict, state = found(updates, state, rng())
    assert not verdict.flagged.any()


def test_of_three_rows_nothing_is_said_and_nothing_kept():
    found, state = detector(), detector().init(D)
    verdict, after = found(cohort(0, n=3), state, rng())
    assert verdict.scores.isnan().all()
    assert after is state


@pytest.mark.parametrize(
    "wrong",
    [{"false_alarm_rate": 0}, {"false_alarm_rate": 1.0}, {"sketch_size": 0}, {"action": "x"}],
)
def test_what_makes_no_sense_is_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        detector(**wrong)
