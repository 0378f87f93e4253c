"""`backend=auto`: when it moves to a pool, and that the bits do not tell whether it did."""

import shutil
import threading

import pytest
import torch

from fedexp.backends.auto import Auto
from fedexp.backends.in_process import InProcess
from fedexp.backends.process_pool import ProcessPool
from fedexp.core.checks import InputError
from tests.support.workloads import (
    begins_late,
    ends_at_once,
    final_models,
    start,
    tasks,
    trainer,
    workload,
)


class Waits:
    """A backend whose pool, once it is coming, is there by the next round."""

    def __init__(self, auto):
        self.auto = auto

    def train(self, trainer, tasks):
        updates = self.auto.train(trainer, tasks)
        if self.auto._coming is not None:
            self.auto._coming._launch.join()
        return updates


@pytest.mark.usefixtures("quick_workers")
def test_auto_moves_to_a_pool_without_changing_bits(monkeypatch):
    monkeypatch.setattr("fedexp.backends.auto.PAYS_AFTER", 0.0)
    auto = Auto(workload(), workers=2, rounds=4)
    try:
        expected = final_models(InProcess(workload()), workload())
        assert final_models(Waits(auto), workload()) == expected
        assert isinstance(auto._backend, ProcessPool)
        wanted = InProcess(workload()).evaluate([start(workload())], "test")
        assert torch.equal(auto.evaluate([start(workload())], "test")[0], wanted[0])
    finally:
        auto.close()


@pytest.mark.usefixtures("quick_workers")
def test_auto_does_not_wait_for_its_workers(monkeypatch, new_children):
    monkeypatch.setattr("fedexp.backends.auto.PAYS_AFTER", 0.0)
    monkeypatch.setattr("fedexp.backends.process_pool.serve", begins_late)
    auto = Auto(workload(), workers=2, rounds=9)
    try:
        for round in range(4):
            auto.train(trainer(), tasks(start(workload()), round))
        assert auto._coming is not None
        assert isinstance(auto._backend, InProcess)
    finally:
        auto.close()  # while they start
    assert not new_children()


def has_started_a_pool(auto):
    return auto._coming is not None or isinstance(auto._backend, ProcessPool)


@pytest.mark.usefixtures("quick_workers")
def test_auto_moves_where_the_server_trains_as_well(monkeypatch):
    monkeypatch.setattr("fedexp.backends.auto.PAYS_AFTER", 0.0)
    auto, params = Auto(workload(), workers=2, rounds=9), start(workload())
    try:
        for round in range(2):  # as `RootData` does it: the server's own shard first
            auto.train(trainer(), tasks(params, round, clients=(0,)))
            auto.train(trainer(), tasks(params, round))
        assert has_started_a_pool(auto)
    finally:
        auto.close()


@pytest.mark.usefixtures("quick_workers")
@pytest.mark.parametrize(("round", "pays"), [(0, True), (96, False)])
def test_auto_counts_the_rounds_that_a_resumed_run_has_left(monkeypatch, round, pays):
    monkeypatch.setattr("fedexp.backends.auto.PAYS_AFTER", 2.0)
    monkeypatch.setattr("fedexp.backends.auto.seconds_to_start", lambda: 3.0)
    auto, params = Auto(workload(), workers=2, rounds=100), start(workload())
    try:
        auto._seconds = 1.0  # of a round before
        auto.train(trainer(), tasks(params, round))
        assert has_started_a_pool(auto) == pays
    finally:
        auto.close()


@pytest.mark.usefixtures("quick_workers")
def test_auto_stays_in_process_where_a_worker_dies_at_its_start(monkeypatch, caplog, new_children):
    monkeypatch.setattr("fedexp.backends.auto.PAYS_AFTER", 0.0)
    monkeypatch.setattr("fedexp.backends.process_pool.serve", ends_at_once)
    auto = Auto(workload(), workers=2, rounds=4)
    expected = final_models(InProcess(workload()), workload())
    assert final_models(Waits(auto), workload()) == expected
    assert isinstance(auto._backend, InProcess)
    assert "goes on in one process" in caplog.text
    assert "died at its start with exit code 3" in caplog.text
    assert not new_children()


def test_auto_starts_workers_for_what_a_start_of_them_costs(monkeypatch):
    started = []
    monkeypatch.setattr("fedexp.backends.auto.PAYS_AFTER", 2.0)
    monkeypatch.setattr(ProcessPool, "start", lambda self, *arguments: started.append(self))
    for seconds, expected in ((1000.0, 0), (1e-9, 1)):
        monkeypatch.setattr("fedexp.backends.auto.seconds_to_start", lambda s=seconds: s)
        auto = Auto(workload(), workers=2, rounds=20)
        for round in range(3):
            auto.train(trainer(), tasks(start(workload()), round))
        assert len(started) == expected


def test_auto_goes_on_in_process_where_a_pool_has_no_room(monkeypatch, caplog):
    monkeypatch.setattr("fedexp.backends.auto.PAYS_AFTER", 0.0)
    nearly_full = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr("fedexp.backends.board.shutil.disk_usage", lambda path: nearly_full)
    auto = Auto(workload(), workers=2, rounds=4)
    assert final_models(auto, workload()) == final_models(InProcess(workload()), workload())
    assert len(auto.evaluate([start(workload())], "test")) == 1
    assert "MB of shared memory" in caplog.text
    with pytest.raises(InputError, match="use backend=in_process"):
        ProcessPool(workload(), workers=2).train(trainer(), tasks(start(workload())))


def test_auto_stays_in_process_when_the_run_is_short():
    auto = Auto(workload(), workers=2, rounds=2)
    auto.train(trainer(), tasks(start(workload())))
    assert isinstance(auto._backend, InProcess)


@pytest.mark.usefixtures("quick_workers")
def test_auto_moves_within_a_long_round(monkeypatch):
    """The first two clients show how long the round is; the workers are waited for here."""
    start_pool, trained_by_workers = ProcessPool.start, []

    def started_and_ready(pool, *arguments):
        start_pool(pool, *arguments)
        pool._launch.join()

    def counted(pool, trainer, tasks, train=ProcessPool.train):
        trained_by_workers.append([task.client_id for task in tasks])
        return train(pool, trainer, tasks)

    monkeypatch.setattr("fedexp.backends.auto.PAYS_AFTER", 0.0)
    monkeypatch.setattr("fedexp.backends.auto.LOOK_AFTER", 0.0)
    monkeypatch.setattr(ProcessPool, "start", started_and_ready)
    monkeypatch.setattr(ProcessPool, "train", counted)
    params = start(workload())
    expected = InProcess(workload()).train(trainer(), tasks(params))
    auto = Auto(workload(), workers=2, rounds=4)
    try:
        updates = auto.train(trainer(), tasks(params))
        assert trained_by_workers == [[2, 3]]
        assert torch.equal(updates.matrix, expected.matrix)
        assert torch.equal(updates.num_examples, expected.num_examples)
        assert updates.client_ids == expected.client_ids
        assert (updates.metrics, updates.processed) == (expected.metrics, expected.processed)
        assert len(updates.kept) == 4
    finally:
        auto.close()


def test_auto_looks_at_a_short_round_after_it_only(monkeypatch):
    monkeypatch.setattr("fedexp.backends.auto.PAYS_AFTER", 0.0)
    auto = Auto(workload(), workers=2, rounds=4)
    auto.train(trainer(), tasks(start(workload())))
    assert not has_started_a_pool(auto)


class HoldsALock:
    """A trainer that cannot be sent to another process."""

    def __init__(self):
        self.lock = threading.Lock()

    def __call__(self, model, shard, task):
        return trainer()(model, shard, task)


@pytest.mark.usefixtures("quick_workers")
def test_auto_stays_in_process_where_the_training_cannot_be_sent(monkeypatch, caplog):
    """It ended in a traceback, in the middle of a round."""
    monkeypatch.setattr("fedexp.backends.auto.PAYS_AFTER", 0.0)
    auto, params = Auto(workload(), workers=2, rounds=4), start(workload())
    try:
        for round in range(4):
            updates = Waits(auto).train(HoldsALock(), tasks(params, round))
        assert isinstance(auto._backend, InProcess)
    finally:
        auto.close()
    expected = InProcess(workload()).train(trainer(), tasks(params, 3))
    assert torch.equal(updates.matrix, expected.matrix)
    assert "goes on in one process, because of a pool: worker processes do not start" in caplog.text
    with pytest.raises(ChildProcessError, match="cannot pickle"):
        ProcessPool(workload(), workers=2).train(HoldsALock(), tasks(params))
