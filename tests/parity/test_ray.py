"""A Ray cluster gives the bits of `InProcess`, loses only what died, and leaves nothing behind."""

import os
import signal
import sys
import threading
from dataclasses import replace

import pytest
import torch

from fedexp.backends.in_process import InProcess
from fedexp.backends.ray_cluster import RayCluster
from fedexp.channel.block_means import BlockMeans
from fedexp.config.build import build
from fedexp.core.checks import InputError
from fedexp.federation.rounds import initial_state, run_rounds
from tests.support.composing import config_for
from tests.support.workloads import Dies, Raises, start, tasks, trainer, workload

STORE = 100 * 2**20  # bytes; small, for a machine that does other things too


def joined():
    return RayCluster(workload(), address=None, workers=2, store_mb=None)


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError) as refusal:
        joined()
    assert str(refusal.value) == (
        "backend=ray: needs Ray, which is not installed: pip install 'fedexp[ray]'"
    )


@pytest.mark.slow
def test_an_address_where_nobody_is_is_refused_at_once():
    pytest.importorskip("ray")
    backend = RayCluster(workload(), "127.0.0.1:1", workers=2, store_mb=None)
    with pytest.raises(
        InputError, match=r"backend\.address=127\.0\.0\.1:1: Ray cannot be .*refused"
    ):
        backend.train(trainer(), tasks(start(workload())))


@pytest.fixture(scope="module")
def two_nodes():
    """Two nodes of one CPU each on this machine, which this process has joined."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    before = signal.getsignal(signal.SIGTERM), sys.excepthook
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="disabled")
    one = {"num_cpus": 1, "object_store_memory": STORE}
    cluster = Cluster(initialize_head=True, head_node_args=one)
    cluster.add_node(**one)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    cluster.wait_for_nodes()
    yield cluster
    ray.shutdown()
    cluster.shutdown()
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_AUTH_MODE"):
        os.environ.pop(name)
    signal.signal(signal.SIGTERM, before[0])
    sys.excepthook = before[1]


SMALL = ("n_clients=6", "rounds=4", "model.hidden=[16]", "train_examples=300")
RUNS = {
    "mean": (),
    "median": ("aggregator=median", "attack=sign_flip", "attack.n_malicious=1"),
    "dp_sgd": ("privacy=dp_sgd",),
    "secure_aggregation": ("channel=secure_aggregation",),
    "scaffold": ("algorithm=scaffold", "cohort_size=4"),
    "worker_momentum": ("worker_momentum=momentum", "cohort_size=4"),
    "local_only": ("setting=local_only",),
    "block_means": ("channel=block_means", "channel.size=4"),
    "scaffold_block_means": ("algorithm=scaffold", "channel=block_means", "channel.size=4"),
}


def results(overrides, backend, after_round=lambda round: None):
    """The last parameters, and every round's figures as text."""
    built = build(config_for(*SMALL, *overrides, f"backend={backend}"))
    experiment, figures = built.experiment, []
    try:
        for state, record in run_rounds(experiment, initial_state(experiment, start(built))):
            figures.append(repr(record.metrics))
            after_round(state.round)
    finally:
        experiment.backend.close()
    return state.params, figures


@pytest.mark.slow
@pytest.mark.parametrize("run", RUNS)
def test_two_nodes_give_the_bits_of_one_process(two_nodes, run):
    here, figures = results(RUNS[run], "in_process")
    there, same = results(RUNS[run], "ray")
    assert torch.equal(here, there)
    assert figures == same


@pytest.mark.slow
def test_a_node_that_dies_in_round_3_costs_its_tasks_only(two_nodes, caplog):
    more = two_nodes.add_node(num_cpus=2, object_store_memory=STORE)
    two_nodes.wait_for_nodes()
    deaths = []

    def after_round(round):
        if round == 2:
            deaths.append(threading.Timer(0.3, two_nodes.remove_node, (more, False)))
            deaths[0].start()

    longer = ("training.epochs=2000",)  # a second a round, so that it dies at work
    here, figures = results(longer, "in_process")
    there, same = results(longer, "ray", after_round)
    deaths[0].join()
    assert torch.equal(here, there)
    assert figures == same
    assert "it is tried again" in caplog.text


@pytest.mark.slow
def test_a_client_that_always_takes_its_worker_along_is_named(two_nodes, caplog):
    backend = joined()
    with pytest.raises(ChildProcessError, match=r"3 workers of the Ray cluster died at client 1 "):
        backend.train(Dies(), tasks(start(workload())))
    assert "a worker died at client 1 " in caplog.text
    assert "it is tried again" in caplog.text
    # And the cluster goes on.
    expected = InProcess(workload()).train(trainer(), tasks(start(workload()))).matrix
    assert torch.equal(backend.train(trainer(), tasks(start(workload()))).matrix, expected)
    backend.close()


@pytest.mark.slow
def test_a_client_that_raises_is_named_with_its_traceback(two_nodes):
    with pytest.raises(InputError, match=r"^client 2: \S*, line \d+: .*two is too many") as failed:
        joined().train(Raises(), tasks(start(workload())))
    assert "Traceback" in str(failed.value.__cause__)


@pytest.mark.slow
def test_answers_stand_in_task_order_and_clients_may_start_from_their_own(two_nodes):
    params = start(workload())
    own = [
        replace(task, params=params * (1 + k))
        for k, task in enumerate(tasks(params, clients=(3, 0, 1)))
    ]
    expected = InProcess(workload()).train(trainer(), own)
    updates = joined().train(trainer(), own)
    assert updates.client_ids == (3, 0, 1)
    assert updates.num_examples.tolist() == [5, 3, 12]
    assert torch.equal(updates.matrix, expected.matrix)
    assert updates.metrics == expected.metrics


@pytest.mark.slow
def test_evaluation_is_the_same_for_one_model_and_for_many(two_nodes):
    params = start(workload())
    models = [params, params * 2, -params]
    expected = InProcess(workload()).evaluate(models, "test")
    for answer, wanted in zip(joined().evaluate(models, "test"), expected, strict=True):
        assert torch.equal(answer, wanted)


@pytest.mark.slow
def test_merged_by_the_workers_or_merged_here(two_nodes):
    params, merger = start(workload()), BlockMeans(size=3, weighting="examples")
    given = tasks(params)
    here = merger.merged(InProcess(workload()).train(trainer(), given))
    for backend in (InProcess(workload()), joined()):
        merged = backend.train_merged(trainer(), given, merger)
        assert torch.equal(merged.matrix, here.matrix)
        assert (merged.in_a_row, merged.client_ids) == (3, (0, 1, 2, 3))
        assert merged.num_examples.tolist() == here.num_examples.tolist()


@pytest.mark.slow
def test_nobody_in_the_cohort(two_nodes):
    assert joined().train(trainer(), []).matrix.shape[0] == 0
    merger = BlockMeans(size=3, weighting="examples")
    assert len(joined().train_merged(trainer(), [], merger)) == 0
