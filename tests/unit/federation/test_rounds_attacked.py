"""Where in a round the adversary stands, and what it knows."""

from dataclasses import replace

import numpy as np

from fedexp.attacks.sign_flip import SignFlip
from fedexp.channel.plain import Plain
from fedexp.core.attack_schedule import AttackSchedule
from fedexp.federation.rounds import run_round, run_rounds
from fedexp.federation.update_validation import StandardValidation
from tests.support.toy_rounds import Cohorts, Spy, experiment, start_of, value_of


def test_the_adversary_rewrites_its_own_row():
    exp = experiment(malicious=np.array([False, True]), attack=SignFlip(2.0))
    state, record = run_round(exp, start_of(exp))
    assert state.params.tolist() == [0.75 * 2 - 0.25 * 2 * 6]
    assert value_of(record, "round", "all", "malicious") == 1


def test_the_mask_follows_the_cohort():
    exp = experiment(
        malicious=np.array([False, True]), attack=SignFlip(1.0), sampler=Cohorts([0], [1])
    )
    (first, about), (second, about_second) = [
        (float(state.params), value_of(record, "round", "all", "malicious"))
        for state, record in run_rounds(replace(exp, rounds=2), start_of(exp))
    ]
    assert (first, about) == (2.0, 0)
    assert (second, about_second) == (2.0 - (6.0 - 2.0), 1)


def test_the_adversary_knows_the_rule_and_begins_when_it_is_told_to():
    attack = Spy()
    exp = experiment(
        attack=attack, malicious=np.array([False, True]), schedule=AttackSchedule(first=1)
    )
    records = [record for _, record in run_rounds(exp, start_of(exp))]
    assert [mask for mask, _ in attack.seen] == [[False, True], [False, True]]
    assert [step for _, step in attack.seen] == [0.0, 0.0]  # the weighted mean of the rows
    assert [value_of(r, "round", "all", "malicious") for r in records] == [0, 1, 1]


class Halved:
    """A channel after which the server has other rows than were sent."""

    sums = False

    def transmit(self, updates, rng):
        return Plain().transmit(self.as_received(updates, rng), rng)

    def as_received(self, updates, rng):
        return updates.with_matrix(updates.matrix / 2)


def test_the_adversary_knows_the_rule_as_it_is_applied_to_what_arrives():
    attack = Spy()
    attackers = np.array([False, True])
    run_round(*starting(experiment(attack=attack, malicious=attackers, channel=Halved())))
    assert [step for _, step in attack.seen] == [1.5]  # the weighted mean of half the rows


def test_the_adversary_knows_that_what_the_server_would_not_take_has_no_effect():
    attack = Spy()
    exp = experiment(attack=attack, malicious=np.array([False, True]))
    server = replace(exp.server, update_validation=StandardValidation(norm_cap=4.0))
    run_round(*starting(replace(exp, server=server)))
    assert [step for _, step in attack.seen] == [2.0]  # the row of 6 is dropped


def starting(exp):
    return exp, start_of(exp)


class Adds:
    """A mechanism of the clients that adds 10 to every row before the adversary sees it."""

    releases_every_round = False

    def init(self, d):
        return {}

    def on_client(self, updates, state, rng):
        return updates.with_matrix(updates.matrix + 10)

    def on_receipt(self, updates, state):
        return updates

    def on_step(self, step, updates, state, rng):
        return step, state


def test_the_adversary_rewrites_what_honest_clients_have_protected_already():
    attack = Spy(-1.0)
    attackers = np.array([False, True])
    exp = experiment(attack=attack, malicious=attackers, privacy=Adds(), rounds=1)
    ((state, _),) = run_rounds(exp, start_of(exp))
    assert attack.seen == [([False, True], 0.75 * 12 + 0.25 * 16)]
    assert state.params.tolist() == [0.75 * 12 + 0.25 * -1]
