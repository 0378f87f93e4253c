"""The round loop against a computation by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedexp.aggregation.mean import Mean
from fedexp.aggregation.server_optimizers import SGD, Momentum
from fedexp.attacks.sign_flip import SignFlip
from fedexp.core.rng import generator, seed_for
from fedexp.core.round_record import ServerState
from fedexp.federation.evaluation import ShareOfTime
from fedexp.federation.root import RootData
from fedexp.federation.rounds import run_round, run_rounds
from fedexp.federation.settings import LocalOnly
from fedexp.federation.worker_momentum import Momentum as WorkerMomentum
from tests.support.toy_rounds import (
    Cohorts,
    ToTarget,
    Toy,
    experiment,
    params,
    start_of,
    value_of,
)


def test_one_round_by_hand():
    exp = experiment()
    state, record = run_round(exp, start_of(exp, 1.0))
    # Deltas 2 - 1 = 1 and 6 - 1 = 5; step 3/4 * 1 + 1/4 * 5 = 2.
    assert state.params.tolist() == [3.0]
    assert state.round == record.round == 1
    assert value_of(record, "round", "all", "step_norm") == 2.0
    assert value_of(record, "round", "all", "clients") == 2
    assert value_of(record, "round", "all", "examples") == 40
    assert value_of(record, "round", "all", "bytes_up") == 2 * 4
    assert value_of(record, "round", "all", "bytes_down") == 2 * 4
    assert value_of(record, "round", "all", "malicious") == 0
    assert value_of(record, "test", "0", "param") == 3.0
    assert record.seconds.keys() == {"train", "transmit", "aggregate", "evaluate"}
    assert all(seconds >= 0 for seconds in record.seconds.values())


def test_the_server_optimiser_takes_the_step():
    # 0, then 3/4 * 2 + 1/4 * 6 = 3: half of the way is taken each time.
    assert params(experiment(server_optimizer=SGD(0.5))) == [1.5, 2.25, 2.625]
    # m = 3, w = 3; m = 0.5 * 3 + 0 = 1.5, w = 4.5; m = 0.75 - 1.5 = -0.75, w = 3.75
    assert params(experiment(server_optimizer=Momentum(1.0, 0.5))) == [3.0, 4.5, 3.75]


def test_only_the_cohort_trains_and_weighs():
    assert params(experiment(sampler=Cohorts([1], [0]))) == [6.0, 2.0, 6.0]


def test_each_client_gets_its_start_its_round_and_a_seed_of_its_own():
    exp = experiment()
    list(run_rounds(exp, start_of(exp)))
    tasks = [task for tasks in exp.backend.tasks for task in tasks]
    assert [(t.round, t.client_id) for t in tasks] == [(r, c) for r in range(3) for c in range(2)]
    assert [t.seed for t in tasks] == [seed_for(0, "client", t.round, t.client_id) for t in tasks]
    assert [float(t.params) for t in tasks] == [0, 0, 3, 3, 3, 3]


def test_the_streams_are_named_by_seed_and_round():
    exp = experiment()
    list(run_rounds(exp, start_of(exp)))
    assert exp.sampler.draws == [generator(0, "cohort", r).random() for r in range(3)]


def test_training_is_told_client_by_client_and_as_a_weighted_mean():
    class Losses(Toy):
        def train(self, trainer, tasks):
            updates = super().train(trainer, tasks)
            return replace(updates, metrics=({"loss": 1.0}, {"loss": 5.0}))

    exp = experiment(backend=Losses())
    _, record = run_round(exp, start_of(exp))
    assert value_of(record, "train", "0", "loss") == 1.0
    assert value_of(record, "train", "1", "loss") == 5.0
    assert value_of(record, "train", "all", "loss") == pytest.approx(0.75 * 1 + 0.25 * 5)


@pytest.mark.parametrize(
    ("rounds", "eval_every", "evaluated"),
    [(7, 3, [3, 6, 7]), (6, 3, [3, 6]), (3, 10, [3]), (2, 1, [1, 2]), (1, 1, [1])],
)
def test_evaluates_every_so_often_and_at_the_end(rounds, eval_every, evaluated):
    exp = experiment(rounds=rounds, eval_every=eval_every)
    records = [record for _, record in run_rounds(exp, start_of(exp))]
    assert [r.round for r in records if any(m.scope == "test" for m in r.metrics)] == evaluated
    assert [r.round for r in records if r.predictions is not None] == evaluated
    assert [r.round for r in records] == list(range(1, rounds + 1))


def comparable(rounds):
    """States and records without the seconds, which are all that may differ."""
    return [
        (
            state.round,
            state.params.tolist(),
            {name: tensor.tolist() for name, tensor in state.optimizer.items()},
            record.metrics,
        )
        for state, record in rounds
    ]


@pytest.mark.parametrize("stop", [1, 2, 4])
def test_a_run_resumed_from_a_saved_state_equals_a_straight_one(stop):
    def parts():
        # A sampler without memory: the stream alone decides, as with the real ones.
        def sampler(n_clients, rng):
            return np.flatnonzero(rng.random(n_clients) < 0.7)

        return experiment(rounds=5, server_optimizer=Momentum(1.0, 0.5), sampler=sampler)

    straight = comparable(run_rounds(parts(), start_of(parts())))
    before = list(run_rounds(replace(parts(), rounds=stop), start_of(parts())))
    last = before[-1][0]
    saved = ServerState(
        last.round,
        last.params.clone(),
        {name: tensor.clone() for name, tensor in last.optimizer.items()},
        dict(last.aggregator),
    )
    assert comparable(run_rounds(parts(), saved)) == straight[stop:]


def test_a_finished_state_gives_no_more_rounds():
    exp = experiment()
    state = replace(start_of(exp), round=3)
    assert list(run_rounds(exp, state)) == []
    assert exp.backend.tasks == []


def test_no_state_is_changed_by_the_rounds_after_it():
    # The rows lie in a buffer that the next round overwrites.
    exp = experiment(rounds=4, server_optimizer=Momentum(1.0, 0.5))
    seen = []
    for state, _ in run_rounds(exp, start_of(exp)):
        seen.append((state, state.params.clone(), state.optimizer["m"].clone()))
    for state, kept, momentum in seen:
        assert torch.equal(state.params, kept)
        assert torch.equal(state.optimizer["m"], momentum)


def test_alone_every_client_reaches_its_own_target():
    setting = LocalOnly()
    exp = experiment(setting=setting, aggregator=setting.aggregator(Mean("examples"), 2), rounds=1)
    state, record = run_round(exp, start_of(exp, 1.0))
    assert state.params.tolist() == [[2.0], [6.0]]
    assert value_of(record, "test", "1", "param") == 6.0


def test_the_state_of_the_aggregator_is_carried_on():
    class Counts:
        def init(self, d):
            return {"calls": torch.zeros(d)}

        def __call__(self, updates, state, rng):
            return updates.matrix.mean(dim=0), {"calls": state["calls"] + 1}

    exp = experiment(aggregator=Counts(), sampler=Cohorts([0], [], [1]))
    states = [state for state, _ in run_rounds(exp, start_of(exp))]
    assert [float(state.aggregator["calls"]) for state in states] == [1, 1, 2]


class Twice(ToTarget):
    """Training of the server's own, which is not the clients'."""

    def __call__(self, client, start):
        return 2 * super().__call__(client, start)


def test_the_servers_own_row_is_the_reference_and_no_client():
    class Trusts:
        def init(self, d):
            return {}

        def __call__(self, updates, state, rng):
            assert updates.client_ids == (0,)
            return updates.reference.clone(), state

    exp = experiment(
        n_clients=1,
        malicious=np.zeros(1, dtype=bool),
        sampler=Cohorts([0]),
        root=RootData(1, Twice()),
        aggregator=Trusts(),
    )
    state, record = run_round(exp, start_of(exp))
    assert state.params.tolist() == [12.0]  # what client 1, here the server, trained in its way
    assert value_of(record, "round", "all", "clients") == 1
    assert not [m for m in record.metrics if m.client == "1"]


def test_a_round_reads_what_its_own_cohort_keeps_and_nobody_elses():
    class Reading:
        """What a client keeps; notes that it was asked for."""

        def __init__(self, client):
            self.client = client

        def read(self):
            asked.append(self.client)
            return {"worker_momentum.momentum": torch.tensor([float(self.client)])}

    asked = []
    exp = experiment(worker_momentum=WorkerMomentum(0.5, True, "zero"), sampler=Cohorts([1]))
    kept = {client: Reading(client) for client in range(10_000)}
    state, _ = run_round(exp, replace(start_of(exp), clients=kept))
    assert asked == [1]
    assert state.params.tolist() == [0.5 * 1 + 0.5 * 6]
    assert state.clients[1].read()["worker_momentum.momentum"].tolist() == [3.5]
    assert {c: k for c, k in state.clients.items() if c != 1} == {
        c: k for c, k in kept.items() if c != 1
    }


def test_worker_momentum_is_carried_on():
    exp = experiment(worker_momentum=WorkerMomentum(0.5, True, "first_update"))
    # Steps 3, then 0.5 * 3 + 0.5 * 0, then 0.5 * 1.5 + 0.5 * (3 - 4.5).
    assert params(exp) == [3.0, 4.5, 4.5]


@pytest.mark.parametrize(("malicious_too", "expected"), [(True, [0.0]), (False, [-0.75])])
def test_the_malicious_attack_with_their_momentum_or_without(malicious_too, expected):
    momentum = WorkerMomentum(0.5, True, "zero", malicious_too)
    malicious = np.array([False, True])
    exp = experiment(worker_momentum=momentum, malicious=malicious, attack=SignFlip(1.0))
    # Client 0 sends half of 2; client 1 the opposite of half of 6, or of 6. Weights 3/4 and 1/4.
    state, _ = run_round(exp, start_of(exp))
    assert state.params.tolist() == expected


class Slowly:
    """A pace that lets every fourth question pass, and notes what it is told."""

    def __init__(self):
        self.asked, self.noted = 0, []

    def allows(self):
        self.asked += 1
        return self.asked % 4 == 1

    def note(self, seconds, evaluated):
        self.noted.append((set(seconds), evaluated))


def test_a_pace_decides_among_the_rounds_that_are_due_and_the_last_is_evaluated():
    exp = experiment(rounds=8, eval_every=1, pace=Slowly())
    records = [record for _, record in run_rounds(exp, start_of(exp))]
    assert [r.round for r in records if r.predictions is not None] == [1, 5, 8]
    assert [evaluated for _, evaluated in exp.pace.noted] == [n in (1, 5, 8) for n in range(1, 9)]
    assert all("evaluate" in phases and "train" in phases for phases, _ in exp.pace.noted)
    # What a round showed is what it shows when all are evaluated.
    every = experiment(rounds=8)
    wanted = [record for _, record in run_rounds(every, start_of(every))]
    assert records[4].metrics == wanted[4].metrics


@pytest.mark.parametrize("cost", [0.01, 1.0, 30.0])
def test_evaluations_take_a_fifth_of_the_time_at_most(cost):
    pace, total, spent, made = ShareOfTime(0.2), 0.0, 0.0, 0
    for _ in range(300):
        due = pace.allows()
        if made:
            assert due == (spent + cost <= 0.2 * (total + cost))
        pace.note({"train": 1.0, "evaluate": cost * due}, due)
        total, spent, made = total + 1.0 + cost * due, spent + cost * due, made + due
        assert made < 2 or spent <= 0.2 * total + 1e-9
    assert made == (300 if cost < 0.25 else pytest.approx(75 / cost, abs=1))
