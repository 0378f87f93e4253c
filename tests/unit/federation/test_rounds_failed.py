"""Rounds that move nothing: empty, too small or full of unusable rows."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedexp.aggregation.server_optimizers import Momentum
from fedexp.attacks.sign_flip import SignFlip
from fedexp.channel.plain import Plain
from fedexp.core.checks import InputError
from fedexp.core.types import Verdict
from fedexp.federation.rounds import run_round, run_rounds
from fedexp.federation.update_validation import StandardValidation
from tests.support.toy_rounds import Cohorts, Spy, experiment, start_of, value_of


def test_an_empty_cohort_is_a_legal_round():
    exp = experiment(
        sampler=Cohorts([0], [], [0]),
        server_optimizer=Momentum(1.0, 0.5),
        malicious=np.array([True, True]),
        attack=SignFlip(1.0),
    )
    states, records = zip(*run_rounds(exp, start_of(exp)), strict=True)
    assert [state.round for state in states] == [1, 2, 3]
    # Nobody answered: not even the server's momentum moves the model.
    assert torch.equal(states[1].params, states[0].params)
    assert torch.equal(states[1].optimizer["m"], states[0].optimizer["m"])
    assert value_of(records[1], "round", "all", "clients") == 0
    assert value_of(records[1], "round", "all", "step_norm") == 0
    assert value_of(records[1], "round", "all", "bytes_up") == 0
    assert value_of(records[1], "test", "0", "param") == float(states[0].params)
    assert not [row for row in records[1].metrics if row.scope == "train"]
    assert not torch.equal(states[2].params, states[1].params)


def test_a_round_with_too_few_clients_moves_nothing_and_says_so():
    exp = experiment(min_clients=2, sampler=Cohorts([0]))
    start = start_of(exp)
    state, record = run_round(exp, start)
    assert torch.equal(state.params, start.params)
    assert state.round == 1
    skipped = [m.value for m in record.metrics if m.metric == "skipped"]
    assert skipped == [1.0]


def test_broken_rows_are_dropped_counted_and_named():
    attack = Spy(float("nan"))
    exp = experiment(
        attack=attack, malicious=np.array([False, True]), update_validation=StandardValidation(None)
    )
    states, records = zip(*run_rounds(exp, start_of(exp)), strict=True)
    assert [float(s.params) for s in states] == [2.0, 2.0, 2.0]  # client 0 alone
    assert value_of(records[0], "round", "all", "dropped") == 1
    assert value_of(records[0], "update", "1", "dropped") == 1
    assert records[0].notes == ("dropped what client 1 sent: not finite",)


def test_too_many_bad_rounds_in_a_row_end_the_run_with_the_reason():
    everybody = np.array([True, True])
    exp = experiment(
        attack=Spy(float("nan")),
        malicious=everybody,
        update_validation=StandardValidation(None),
        rounds=9,
        max_failed_rounds=3,
    )
    rounds = run_rounds(exp, start_of(exp))
    *_, (state, _) = [next(rounds) for _ in range(3)]  # each is recorded before the end
    with pytest.raises(InputError, match=r"max_failed_rounds=3: the last 3 .* 0 of the 1 updates"):
        next(rounds)
    with pytest.raises(InputError, match="the last 3 rounds"):  # nor does a resume go on
        next(run_rounds(exp, state))


def test_a_good_round_forgives_the_bad_ones_before_it():
    exp = experiment(sampler=Cohorts([], [], [0, 1]), rounds=9, max_failed_rounds=3)
    *_, (state, _) = run_rounds(exp, start_of(exp))
    assert state.round == 9
    assert state.failed_rounds == 0


def test_a_short_run_in_which_nothing_moved_ends_with_an_error_too():
    exp = experiment(sampler=Cohorts([]), rounds=2, max_failed_rounds=20)
    with pytest.raises(InputError, match="the last 2 rounds moved nothing"):
        list(run_rounds(exp, start_of(exp)))


def nobody(updates, rng):
    delivery = Plain().transmit(updates, rng)
    none = updates.select(torch.zeros(len(updates), dtype=torch.bool))
    return replace(delivery, updates=none, members=())


def broken(updates, rng):
    return Plain().transmit(updates.with_matrix(updates.matrix / 0), rng)


def trusting_nobody(updates, state, rng):
    verdict = Verdict.no_opinion(len(updates))
    return replace(verdict, trust=0 * verdict.trust), state


class Own:
    """A part of somebody's own, which answers in one way."""

    sums = False

    def __init__(self, answer):
        self.transmit = self.answer = answer

    def init(self, d):
        return {}

    def __call__(self, *given):
        return self.answer(*given)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"sampler": Cohorts([])}, r"sampler=\S*Cohorts drew nobody"),
        ({"channel": Own(nobody)}, r"channel=\S*Own brought none of 2 rows"),
        ({"channel": Own(broken)}, r"channel=\S*Own left no honest client's row finite"),
        ({"detector": Own(trusting_nobody)}, r"detector=\S*Own trusted none of 2 rows"),
        ({"update_validation": StandardValidation(1.0)}, r"StandardValidation dropped all 2 rows"),
    ],
)
def test_the_part_that_lets_no_row_pass_is_named(parts, words):
    """Not the limit on such rounds alone, nor the training, whose rows were finite."""
    chosen = {"update_validation": StandardValidation(None), **parts}
    exp = experiment(**chosen, rounds=9, max_failed_rounds=3)
    with pytest.raises(InputError, match=rf"^max_failed_rounds=3: the last 3 .*; \S*{words}$"):
        list(run_rounds(exp, start_of(exp)))


class Diverges:
    """Local training at a learning rate that is far too large."""

    def __call__(self, client, start):
        return torch.full_like(start, float("inf"))


@pytest.mark.parametrize(
    ("malicious", "advice"),
    [([], r"training\.lr$"), ([0], r"training\.lr, or an aggregator that survives the attack$")],
)
def test_training_that_diverges_is_named_and_not_the_limit_on_bad_rounds(malicious, advice):
    exp = experiment(
        trainer=Diverges(),
        update_validation=StandardValidation(None),
        rounds=9,
        max_failed_rounds=3,
    )
    exp.malicious[malicious] = True
    with pytest.raises(InputError, match=rf"training=Diverges: diverges: the last 3 .*{advice}"):
        list(run_rounds(exp, start_of(exp)))
