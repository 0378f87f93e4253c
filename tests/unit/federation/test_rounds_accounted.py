"""Rounds with an account to charge and a channel that loses clients."""

from dataclasses import replace

import numpy as np
import torch

from fedexp.core.rng import generator
from fedexp.core.types import Delivery
from fedexp.federation.rounds import finished, run_rounds
from tests.support.toy_rounds import Cohorts, experiment, start_of, value_of


class Spends:
    """An account of one unit a client, with a limit."""

    def __init__(self, max_epsilon=None):
        self.max_epsilon = max_epsilon

    def init(self):
        return {"spent": torch.zeros(2)}

    def charge(self, state, sent, delivery):
        spent = state["spent"].clone()
        for members in delivery.members:
            spent[list(members)] += 1
        return {"spent": spent}

    def would_exceed(self, state, cohort):
        after = state["spent"].clone()
        after[cohort] += 1
        return float(after.max()) > self.max_epsilon

    def epsilon(self, state):
        return float(state["spent"].max())

    def statement(self, state):
        return {}


class Planned:
    """A sampler that depends on the stream alone, so that it may be asked twice."""

    def __init__(self, *plan):
        self.plan = {generator(0, "cohort", r).random(): c for r, c in enumerate(plan)}

    def __call__(self, n_clients, rng):
        return np.array(self.plan[rng.random()], dtype=np.int64)


def test_the_account_is_charged_for_who_sent_and_its_epsilon_is_recorded():
    exp = experiment(account=Spends(), sampler=Planned([0], [0, 1], []), eval_every=3)
    states, records = zip(*run_rounds(exp, start_of(exp)), strict=True)
    assert [s.ledger["spent"].tolist() for s in states] == [[1, 0], [2, 1], [2, 1]]
    spent = [[m.value for m in r.metrics if m.scope == "privacy"] for r in records]
    assert spent == [[], [], [2.0]]  # where the model is evaluated


def test_the_run_ends_before_the_round_that_would_cost_too_much():
    sampler = Planned([0], [1], [0], [1], [0], [1])
    exp = experiment(account=Spends(2), sampler=sampler, rounds=6, eval_every=10)
    states, records = zip(*run_rounds(exp, start_of(exp)), strict=True)
    assert states[-1].round == 4  # client 0 would train for a third time
    assert finished(exp, states[-1])
    assert not finished(exp, states[-2])
    assert list(run_rounds(exp, states[-1])) == []
    assert value_of(records[-1], "privacy", "all", "epsilon") == 2  # the last one is evaluated
    assert records[-1].predictions is not None


class Loses:
    """A channel that brings the sum of all but the last client, and then nothing at all."""

    sums = True

    def transmit(self, updates, rng):
        ids, n = updates.client_ids, len(updates)
        if n < 2:
            nobody = updates.select(torch.zeros(n, dtype=torch.bool))
            left, lost = ((ids[0], "share"),), ("the group is lost",)
            return Delivery(nobody, (), left, lost, 5, 7, {"x": 1.0}, 0)
        kept = updates.with_matrix(updates.matrix[:-1].mean(dim=0, keepdim=True))
        kept = replace(kept, client_ids=(-1,), num_examples=torch.ones(1).double(), metrics=())
        return Delivery(kept, (ids[:-1],), ((ids[-1], "mask: broken"),), (), 11, 13, {"x": 1.0}, 3)


def test_what_the_channel_loses_is_counted_and_told_and_nobody_elses_row_arrives():
    exp = experiment(channel=Loses(), sampler=Cohorts([0, 1], [1]), rounds=2, min_clients=1)
    (first, one), (second, two) = run_rounds(exp, start_of(exp))
    assert first.params.tolist() == [2.0]
    assert torch.equal(second.params, first.params)
    names = ("clients", "dropped_out", "groups_lost", "clipped_coordinates", "bytes_up")
    assert [value_of(one, "round", "all", name) for name in names] == [2, 1, 0, 3, 11]
    assert [value_of(two, "round", "all", name) for name in names] == [1, 1, 1, 0, 5]
    assert value_of(one, "round", "all", "bytes_down") == 2 * 4 + 13
    assert one.notes == (
        "client 1 left before it could mask: broken",
        "the channel cut 1 or more coordinates of the updates to what it can carry; see "
        "channel.encoder.value_range (with Skellam noise: clip_norm)",
    )
    assert two.notes[:2] == ("clients left before they could share", "the group is lost")
    assert [m.client for m in one.metrics if m.scope == "update"] == ["-1"]
    assert value_of(one, "train", "1", "loss") == 1.0  # known to the record, not to the server
