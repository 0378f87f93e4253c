"""What every algorithm of conf/algorithm must keep."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from fedexp.backends.in_process import InProcess
from fedexp.backends.process_pool import ProcessPool
from fedexp.core.flat import vector_of
from fedexp.core.types import row_size
from fedexp.federation.rounds import initial_state, run_rounds
from tests.support.composing import choices, part
from tests.support.toy_rounds import Cohorts, experiment
from tests.support.workloads import tasks, trainer, workload

CHOICES = choices("algorithm")
COHORTS = ([0, 1, 2, 3], [1, 3], [0, 1, 2], [2, 3])


@pytest.fixture(params=CHOICES)
def algorithm(request):
    return part("algorithm", request.param)


class NoEvaluation:
    def __call__(self, backend, models, round):
        return [], None


def rounds_of(algorithm, backend, **changes):
    parts = {
        "rounds": len(COHORTS),
        "n_clients": 4,
        "malicious": np.zeros(4, dtype=bool),
        "sampler": Cohorts(*COHORTS),
        "trainer": trainer(),
        "evaluator": NoEvaluation(),
        "algorithm": algorithm,
        "backend": backend,
    }
    exp = experiment(**{**parts, **changes})
    return list(run_rounds(exp, initial_state(exp, vector_of(workload().model))))


def first_tasks(algorithm):
    """The tasks of the first round."""
    start = vector_of(workload().model)
    state, broadcast = (
        algorithm.client_init(len(start)),
        algorithm.broadcast(algorithm.init(len(start))),
    )
    return [replace(task, state=state, broadcast=broadcast) for task in tasks(start)]


def numbers(state):
    """All that a state holds, as comparable values."""
    kept = {c: {k: t.tolist() for k, t in s.read().items()} for c, s in state.clients.items()}
    server = {name: tensor.tolist() for name, tensor in state.algorithm.items()}
    return state.params.tolist(), server, kept


def test_the_configs_were_found():
    assert {"fedavg", "scaffold"} <= set(CHOICES)


def test_names_of_what_is_sent_are_all_different(algorithm):
    names = [sent.name for sent in algorithm.sends]
    assert len(set(names)) == len(names)
    assert all(names)


def test_clients_send_and_keep_what_is_declared(algorithm):
    d = len(vector_of(workload().model))
    local = algorithm.local(trainer())
    assert getattr(local, "sends", ()) == algorithm.sends
    # Refuses what is not declared.
    updates = InProcess(workload()).train(local, first_tasks(algorithm))
    assert updates.matrix.shape == (4, row_size(algorithm.sends, d))
    first = {name: tensor.shape for name, tensor in algorithm.client_init(d).items()}
    for kept in updates.kept:
        assert {name: tensor.shape for name, tensor in kept.items()} == first


def test_what_was_given_stays_as_it_was(algorithm):
    states = [numbers(state) for state, _ in rounds_of(algorithm, InProcess(workload()))]
    seen = [state for state, _ in rounds_of(algorithm, InProcess(workload()))]
    assert [numbers(state) for state in seen] == states  # also after the rounds that came later


def test_the_server_makes_a_step_of_the_model(algorithm):
    d = 7
    state = algorithm.init(d)
    whole = torch.arange(float(row_size(algorithm.sends, d)))
    before = whole.clone(), {name: tensor.clone() for name, tensor in state.items()}
    step, after = algorithm.server_step(whole, state, share=0.5)
    assert step.shape == (d,)
    assert {k: t.shape for k, t in after.items()} == {k: t.shape for k, t in state.items()}
    assert torch.equal(whole, before[0])
    assert all(torch.equal(state[name], before[1][name]) for name in state)


def test_a_worker_process_gets_the_same_clients(algorithm):
    local = algorithm.local(trainer())
    assert pickle.loads(pickle.dumps(local)) == local


def test_a_pool_gives_the_bits_of_in_process(algorithm):
    expected = [numbers(state) for state, _ in rounds_of(algorithm, InProcess(workload()))]
    for workers in (1, 3):
        pool = ProcessPool(workload(), workers)
        try:
            assert [numbers(state) for state, _ in rounds_of(algorithm, pool)] == expected
        finally:
            pool.close()


def test_what_is_sent_is_counted_and_attackable(algorithm):
    """Every number that leaves a client goes through the adversary's hands and into the bytes."""

    class Doubles:
        def rewrite(self, updates, malicious, rule, rng):
            assert not updates.kept  # what stays with the clients is not shown
            assert rule(updates.matrix).shape == updates.matrix.shape[1:]
            return updates.with_matrix(2 * updates.matrix)

    d = len(vector_of(workload().model))
    width = row_size(algorithm.sends, d)
    records = [record for _, record in rounds_of(algorithm, InProcess(workload()))]
    everybody = np.ones(4, dtype=bool)
    attacked = rounds_of(
        algorithm, InProcess(workload()), attack=Doubles(), malicious=everybody, rounds=1
    )
    ((_, record),) = attacked
    sent = InProcess(workload()).train(algorithm.local(trainer()), first_tasks(algorithm)).matrix
    assert torch.equal(record.received.matrix, 2 * sent)
    for cohort, record in zip(COHORTS, records, strict=True):
        up = [m.value for m in record.metrics if m.metric == "bytes_up"]
        assert up == [4 * width * len(cohort)]
