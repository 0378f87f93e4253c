"""Consistency with the cohort and with oneself, against loops typed from the docstring."""

import math
import statistics

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import nn

from fedexp.core.checks import InputError
from fedexp.core.round_model import RoundModel
from fedexp.core.types import Updates
from fedexp.detection.consistency import AT_ODDS, MARGIN, Consistency
from fedexp.detection.features import DECAY
from fedexp.detection.sketch import count_sketch
from fedexp.tasks.multiclass import Multiclass

SIZE, D = 64, 200


def detector(**changes):
    given = {"false_alarm_rate": 0.01, "sketch_size": SIZE, "action": "drop", "seed": 0}
    return Consistency(**{**given, **changes})


def rng():
    return np.random.default_rng(0)


def cohort(round, n=10, agree=0.5, flipped=(), own=0.0, params=None):
    """Rows with a shared part, a part of their own that stays, and noise."""
    g = torch.Generator().manual_seed(1000 + round)
    shared = torch.randn(D, generator=g)
    habits = torch.randn(n, D, generator=torch.Generator().manual_seed(7))
    rows = agree * shared + own * habits + torch.randn(n, D, generator=g)
    rows[list(flipped)] *= -1
    return sent(rows, params)


def sent(rows, params=None):
    """Rows of clients 0, 1, ... of equal weight, and the model that they started from."""
    n = len(rows)
    model = None if params is None else at(params)
    return Updates(rows, tuple(range(n)), torch.ones(n, dtype=torch.float64), model=model)


def at(params):
    """A model of D parameters at these."""
    return RoundModel(params, nn.Linear(D, 1, bias=False), Multiclass(), (D,))


def pulling(params, optima, bends, noise, draw, flipped=()):
    """Rows of clients with losses (w - optimum)^T diag(bend) (w - optimum) / 2: a tenth of a step.

    Their optima may lie in opposite directions, as those of hospitals with other patients do.
    """
    rows = -0.1 * bends * (params - optima) + noise * torch.randn(optima.shape, generator=draw)
    rows[list(flipped)] *= -1
    return rows


def played(rounds, flipped=(), noise=0.02, n=10, apart=True, rule=lambda rows: rows.mean(dim=0)):
    """A federation of quadratic losses: its rounds' updates, half of the clients at odds."""
    draw = torch.Generator().manual_seed(3)
    signs = torch.ones(n, 1)
    if apart:
        signs[1::2] = -1
    optima = signs * torch.randn(D, generator=draw) + 0.3 * torch.randn(n, D, generator=draw)
    bends = torch.rand(n, D, generator=draw) + 0.5
    params = torch.randn(D, generator=draw)
    for _ in range(rounds):
        rows = pulling(params, optima, bends, noise, draw, flipped)
        yield sent(rows, params)
        params = params + 2 * rule(rows)


def spread(values, floor):
    middle = statistics.median(values)
    return max(floor, 1.4826 * statistics.median(v - middle for v in values if v >= middle))


def cosine(a, b):
    return float(a @ b) / (float(np.linalg.norm(a)) * float(np.linalg.norm(b)))


class Kind:
    """One kind of evidence, by loops over clients."""

    def __init__(self, apart=0.0):
        self.of, self.apart = {}, apart

    def add(self, values, floor):
        if len(values) < 4:
            return
        w = max(0.0, statistics.median(values.values()))
        s = spread(list(values.values()), floor)
        for k, x in values.items():
            one, two, three = self.of.get(k, (0.0, 0.0, 0.0))
            self.of[k] = (one + w * x, two + w**2 * s**2, three + w**2)

    def told(self, clients):
        """Share, deviation by chance and reliance of every client of the round that has one."""
        known = {k: self.of[k] for k in clients if k in self.of and self.of[k][2] > 0}
        shares = {k: one / three for k, (one, _, three) in known.items()}
        if not shares:
            return {}
        middle = statistics.median(shares.values())
        h = (
            np.quantile([middle - x for x in shares.values() if x <= middle], 0.25)
            / 0.3186393639643752
        )
        chance = {k: math.sqrt(two) / three for k, (_, two, three) in known.items()}
        return {k: (shares[k], chance[k], 1 / max(chance[k], h, self.apart) ** 2) for k in known}


def against_the_others(k, agree, answer, z):
    told = [kind[k] for kind in (agree, answer) if k in kind]
    told = [one for one in told if one[1] * z < 2] or told
    total = sum(p for _, _, p in told)
    share = sum(x * p for x, _, p in told) / total
    chance = math.sqrt(sum((p * o) ** 2 for _, o, p in told)) / total
    return min((1 - share) / (chance * z), -share * math.sqrt(total) / MARGIN)


def naive(rounds):
    """Scores of the last round, by loops; models and their moves are not sketched."""
    agree, answer, habits, last, scores = Kind(AT_ODDS), Kind(), {}, None, []
    floor, z = 1 / math.sqrt(SIZE), norm.isf(0.005)
    for updates in rounds:
        rows = count_sketch(updates.matrix, SIZE, 0).numpy()
        units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        clients = range(len(units))
        a = {
            k: statistics.median(float(units[k] @ units[j]) for j in clients if j != k)
            for k in clients
        }
        agree.add(a, floor)
        if updates.model is not None:
            if last is not None:
                before, params = last
                move = count_sketch((updates.model.params - params)[None], SIZE, 0).numpy()[0]
                weights = np.linalg.lstsq(before.T, move, rcond=None)[0]
                answer.add(
                    {
                        k: cosine(before[k] - rows[k], move - weights[k] * before[k])
                        for k in clients
                    },
                    floor,
                )
            last = (rows, updates.model.params)
        cosines = {k: cosine(units[k], habits[k]) for k in clients if k in habits}
        agreed, answered = agree.told(clients), answer.told(clients)
        scores = []
        for k in clients:
            score = against_the_others(k, agreed, answered, z)
            if k in cosines:
                usual = statistics.median(cosines.values())
                chance = z * spread(list(cosines.values()), floor)
                if usual > chance:
                    score = max(score, min(-cosines[k] / chance, -cosines[k] / usual / 0.5))
            scores.append(score)
        for k in clients:
            if scores[k] <= 1:
                habits[k] = DECAY * habits.get(k, 0 * units[k]) + (1 - DECAY) * units[k]
    return scores


def judged(rounds, **changes):
    """The verdicts of all rounds."""
    found, state = detector(**changes), detector(**changes).init(D)
    verdicts = []
    for updates in rounds:
        verdict, state = found(updates, state, rng())
        verdicts.append(verdict)
    return verdicts


@pytest.mark.parametrize("flipped", [(), (3,)])
def test_the_scores_are_the_docstrings(flipped):
    rounds = [cohort(r, flipped=flipped, own=0.5) for r in range(4)]
    verdict = judged(rounds)[-1]
    np.testing.assert_allclose(verdict.scores.numpy(), naive(rounds), rtol=1e-4, atol=1e-4)
    assert verdict.threshold == 1


@pytest.mark.parametrize("flipped", [(), (3,)])
def test_with_the_model_they_are_the_docstrings_too(flipped):
    rounds = list(played(5, flipped))
    verdict = judged(rounds)[-1]
    np.testing.assert_allclose(verdict.scores.numpy(), naive(rounds), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("rule", [lambda r: r.mean(dim=0), lambda r: r.median(dim=0).values])
def test_hospitals_at_odds_are_told_from_flips_by_how_they_answer(rule):
    """Half of the clients pull one way and half the other; angles alone cannot tell who flips."""
    flipped = (0, 3)
    verdicts = judged(played(8, flipped, rule=rule))
    assert [v.flagged.nonzero().flatten().tolist() for v in verdicts[2:]] == [list(flipped)] * 6
    alone = judged(sent(updates.matrix) for updates in played(8, flipped, rule=rule))
    assert alone[-1].flagged.nonzero().flatten().tolist() != list(flipped)


def test_nobody_is_accused_of_being_at_odds():
    assert not any(verdict.flagged.any() for verdict in judged(played(8))[1:])


def test_a_row_that_cannot_be_counted_says_nothing_of_the_others():
    rounds = list(played(6, (0,)))
    rounds[2].matrix[5] = torch.inf
    verdicts = judged(rounds)
    assert verdicts[2].flagged[5]
    assert verdicts[2].trust[5] == 0
    assert verdicts[-1].flagged.nonzero().flatten().tolist() == [0]
    assert all(verdict.scores.isfinite().all() for verdict in verdicts)


def test_who_comes_and_goes_is_held_to_the_round_that_it_was_last_in():
    """Half of the clients a round, by turns."""
    rounds = []
    for round, updates in enumerate(played(12, (0, 3), n=20)):
        there = [k for k in range(20) if (k // 2 + round) % 2]
        rounds.append(
            Updates(
                updates.matrix[there],
                tuple(there),
                torch.ones(len(there), dtype=torch.float64),
                model=updates.model,
            )
        )
    flagged = [
        {updates.client_ids[row] for row in verdict.flagged.nonzero().flatten().tolist()}
        for updates, verdict in zip(rounds, judged(rounds), strict=True)
    ]
    assert set().union(*flagged[6:]) == {0, 3}


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


def test_where_nobody_has_a_habit_none_is_broken():
    """Rows that turn against their own past by chance, as with SCAFFOLD: no two are alike."""
    rounds = [cohort(r, n=20, agree=0.0, own=(-1.0) ** r) for r in range(12)]
    assert not any(verdict.flagged.any() for verdict in judged(rounds))


@pytest.mark.parametrize("agree", [0.0, 0.05])
def test_the_rate_of_false_alarms_holds_where_rows_are_noise(agree):
    """Hardly anything shared, as under DP noise: the rate is a bound."""
    alarms = total = 0
    for seed in range(8):
        found = detector(false_alarm_rate=0.05, seed=seed)
        state = found.init(D)
        for round in range(10):
            verdict, state = found(cohort(100 * seed + round, 20, agree), state, rng())
            alarms, total = alarms + int(verdict.flagged.sum()), total + 20
    assert alarms / total <= 0.05


def test_a_cohort_that_turns_as_one_is_not_accused():
    found, state = detector(), detector().init(D)
    for round in range(6):
        updates = cohort(round, agree=0.0, own=2.0, flipped=range(10) if round == 5 else ())
        verdict, state = found(updates, state, rng())
    assert not verdict.flagged.any()


def test_a_state_from_before_answers_is_read():
    """With the evidence and the habits that it had; what clients answer begins now."""
    rounds = list(played(6, (0, 3)))
    found, state = detector(), detector().init(D)
    for updates in rounds[:2]:
        _, state = found(sent(updates.matrix), state, rng())
    old = {"clients": state["clients"], "evidence": state["agree"], "habits": state["habits"]}
    for updates in rounds[2:]:
        one, state = found(updates, state, rng())
        other, old = found(updates, old, rng())
        assert torch.equal(one.scores, other.scores)


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
