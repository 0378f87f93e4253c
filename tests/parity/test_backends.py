"""Every backend gives the bits of `InProcess`, and a pool never hangs or leaves anything behind."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fedexp.backends.in_process import InProcess
from fedexp.backends.process_pool import ProcessPool
from fedexp.core.checks import InputError
from fedexp.core.types import Sent
from tests.support.commands import Copy
from tests.support.workers import is_alive, live_workers
from tests.support.workloads import (
    MODELS,
    Dies,
    Hangs,
    Raises,
    Says,
    final_models,
    start,
    tasks,
    trainer,
    workload,
)


@pytest.mark.parametrize(
    "model", [pytest.param(m, marks=pytest.mark.slow if m == "resnet18" else ()) for m in MODELS]
)
@pytest.mark.usefixtures("quick_workers")
def test_pools_of_1_2_and_4_workers_give_the_bits_of_in_process(model):
    expected = final_models(InProcess(workload(model)), workload(model))
    assert expected[0.0] != expected[0.9]
    for workers in (1, 2, 4):
        pool = ProcessPool(workload(model), workers)
        try:
            assert final_models(pool, workload(model)) == expected
        finally:
            pool.close()


@pytest.fixture(scope="module")
def lasting_pool():
    pool = ProcessPool(workload(cohort_size=2), workers=2)
    yield pool
    pool.close()


@pytest.fixture
def pool(lasting_pool, quick_workers):
    return lasting_pool


@pytest.fixture(scope="module")
def spawned_pool():
    """Its workers are started as in a run; after `close` they start again with the next call."""
    pool = ProcessPool(workload(), workers=2)
    yield pool
    pool.close()


def test_answers_stand_in_task_order(pool):
    params = start(workload())
    updates = pool.train(trainer(), tasks(params, clients=(3, 0, 1)))
    assert updates.client_ids == (3, 0, 1)
    assert updates.num_examples.tolist() == [5, 3, 12]
    expected = InProcess(workload()).train(trainer(), tasks(params, clients=(3, 0, 1)))
    assert torch.equal(updates.matrix, expected.matrix)
    assert updates.metrics == expected.metrics
    assert updates.processed == expected.processed == 20


def test_clients_with_a_start_of_their_own(pool):
    params = start(workload())
    own = [
        task.__class__(task.client_id, params * (1 + k), task.round, task.seed)
        for k, task in enumerate(tasks(params))
    ]
    expected = InProcess(workload()).train(trainer(), own).matrix.clone()
    assert torch.equal(pool.train(trainer(), own).matrix, expected)


def test_evaluation_is_the_same_for_one_model_and_for_many(pool):
    params = start(workload())
    models = [params, params * 2, -params, params * 0.5, params * 3]
    expected = InProcess(workload()).evaluate(models, "test")
    for answer, wanted in zip(pool.evaluate(models, "test"), expected, strict=True):
        assert answer.shape == (450, 3)
        assert torch.equal(answer, wanted)


def test_evaluation_leaves_what_was_sent(pool):
    """The rows of a round are recorded after its model was evaluated."""
    params = start(workload())
    rows = pool.train(trainer(), tasks(params)).matrix
    before = rows.clone()
    pool.evaluate([params, params * 2, params * 3], "test")
    assert torch.equal(rows, before)


TWO_MORE = Says(
    (Sent("b", numbers=2), Sent("a", numbers=1)),
    (("a", (3.0,)), ("b", (1.0, 2.0))),
    (("s", (5.0,)),),
)


@pytest.mark.parametrize("make", [InProcess, lambda w: ProcessPool(w, workers=2)])
def test_what_is_sent_is_in_the_row_in_the_declared_order_and_what_is_kept_is_beside_it(make):
    backend = make(workload())
    given = [replace(t, state={"s": torch.zeros(1)}) for t in tasks(start(workload()))]
    try:
        updates = backend.train(TWO_MORE, given)
        assert updates.matrix[:, -3:].tolist() == [[1.0, 2.0, 3.0]] * 4
        assert [state["s"].tolist() for state in updates.kept] == [[5.0]] * 4
        assert given[0].state["s"].tolist() == [0.0]
        # And back to rows that are no longer than the model, in the same backend.
        assert backend.train(trainer(), tasks(start(workload()))).matrix.shape[1] == len(
            start(workload())
        )
    finally:
        backend.close()


@pytest.mark.parametrize(
    ("says", "complaint"),
    [
        (Says(sent=(("a", (3.0,)),)), r"sends \['a'\] beside the delta, and declares nothing"),
        (Says((Sent("a"),)), r"sends=a: the training sends nothing beside the delta"),
        (Says(kept=(("a", (3.0,)),)), r"state=a: the training leaves its client with \['a'\]"),
    ],
    ids=["undeclared", "missing", "kept"],
)
def test_what_is_not_declared_is_refused(says, complaint):
    with pytest.raises(InputError, match=complaint):
        InProcess(workload()).train(says, tasks(start(workload())))


def test_nobody_in_the_cohort(pool):
    updates = pool.train(trainer(), [])
    assert len(updates) == 0
    assert updates.matrix.shape[0] == 0


def test_a_cohort_larger_than_planned(pool):
    params = start(workload())
    assert len(pool.train(trainer(), tasks(params))) == 4


@pytest.mark.usefixtures("quick_workers")
def test_a_client_that_raises_is_named_with_its_traceback(new_children):
    broken = ProcessPool(workload(), workers=2)
    with pytest.raises(InputError, match=r"^client 2: \S*, line \d+: .*two is too many") as failed:
        broken.train(Raises(), tasks(start(workload())))
    assert "Traceback" in str(failed.value.__cause__)
    assert not new_children()


@pytest.mark.usefixtures("quick_workers")
def test_a_worker_that_dies_is_named_and_does_not_hang(new_children):
    broken = ProcessPool(workload(), workers=2)
    with pytest.raises(ChildProcessError, match=r"died at client 1 with exit code 7"):
        broken.train(Dies(), tasks(start(workload())))
    assert not new_children()


@pytest.mark.usefixtures("quick_workers")
def test_a_worker_killed_from_outside_does_not_hang(new_children):
    broken = ProcessPool(workload(), workers=2)
    broken.train(trainer(), tasks(start(workload())))
    victim = new_children()[0]
    threading.Timer(0.5, os.kill, (victim, signal.SIGKILL)).start()
    with pytest.raises(ChildProcessError, match="exit code -9"):
        broken.train(Hangs(), tasks(start(workload())))
    assert not new_children()


@pytest.mark.usefixtures("quick_workers")
def test_a_worker_that_dies_between_two_tasks_is_told_from_a_closed_output(new_children):
    broken = ProcessPool(workload(), workers=2)
    broken.train(trainer(), tasks(start(workload())))
    os.kill(new_children()[0], signal.SIGKILL)
    deadline = time.monotonic() + 10
    while len(new_children()) == 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    # Not a BrokenPipeError, at which a run ends as if nobody read its output any more.
    with pytest.raises(ChildProcessError, match=r"died at rest, .* with exit code -9") as death:
        broken.train(trainer(), tasks(start(workload())))
    assert not isinstance(death.value, BrokenPipeError)
    assert not new_children()


def test_close_leaves_nothing_and_may_be_called_twice(spawned_pool):
    spawned_pool.train(trainer(), tasks(start(workload())))
    workers = [process.pid for process in spawned_pool._processes]
    assert len(workers) == 2
    assert set(workers) <= set(live_workers())
    spawned_pool.close()
    spawned_pool.close()
    assert not set(workers) & set(live_workers())
    pids = [os.getpid(), *workers]
    # Other programs share the folder; what torch makes there is named after its process.
    ours = [n for n in os.listdir("/dev/shm") if any(f"torch_{pid}_" in n for pid in pids)]
    assert not ours


def test_workers_never_see_ctrl_c(spawned_pool):
    spawned_pool.train(trainer(), tasks(start(workload())))
    for process in spawned_pool._processes:
        status = Path(f"/proc/{process.pid}/status").read_text()
        blocked = int(next(x for x in status.splitlines() if x.startswith("SigBlk")).split()[1], 16)
        assert blocked & 1 << (signal.SIGINT - 1)
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_when_the_parent_goes_the_workers_go(spawned_pool, end):
    spawned_pool.train(trainer(), tasks(start(workload())))  # the parent is a copy of who has some
    ours, its = multiprocessing.Pipe()
    parent = Copy(live_with_a_pool, its)
    assert ours.poll(60), "the pool does not start"
    workers = ours.recv()
    assert len(workers) == 2
    os.kill(parent.pid, end)
    parent.communicate()
    deadline = time.monotonic() + 10
    while any(is_alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(is_alive(pid) for pid in workers)


@pytest.mark.usefixtures("quick_workers")
def test_a_signal_as_the_start_begins_leaves_no_worker_that_nobody_knows(monkeypatch, new_children):
    begin, pool = threading.Thread.start, ProcessPool(workload(), workers=2)

    def interrupted(thread):
        begin(thread)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pool.start(trainer(), tasks(start(workload())))
    launch = pool._launch
    pool.close()
    assert not launch.is_alive()
    assert not new_children()


@pytest.mark.slow
def test_the_server_of_workers_imports_nothing_of_the_current_folder(tmp_path):
    (tmp_path / "decimal.py").write_text("raise SystemExit('it was imported')")
    code = f"""
import sys; sys.path[:] = [p for p in sys.path if p] + [{str(Path(__file__).parents[2])!r}]
import torch
from fedexp.backends.process_pool import ProcessPool
from tests.support.workloads import start, tasks, trainer, workload
if __name__ == "__main__":
    pool = ProcessPool(workload(), workers=1)
    print(len(pool.train(trainer(), tasks(start(workload())))))
    pool.close()
"""
    (tmp_path / "elsewhere").mkdir()
    script = tmp_path / "elsewhere" / "script.py"
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.returncode) == ("4\n", 0), done.stderr


def live_with_a_pool(connection):
    """A process with workers of its own, until a signal ends it."""
    pool = ProcessPool(workload(), workers=2)
    pool.train(trainer(), tasks(start(workload())))
    connection.send([process.pid for process in pool._processes])
    time.sleep(60)
