"""`hydra/launcher=workers`: jobs side by side; a worker that dies costs its job and no other."""

import os
import signal

import pytest

from fedexp.commands.cli import run_command
from tests.cli.test_interrupt import _all_gone
from tests.support.commands import (
    assert_same_bits,
    start,
    summary_of,
    wait_for_round,
)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("without_pictures")]
WORKERS = ("hydra/launcher=workers", "hydra.launcher.workers=2", "hydra.sweep.dir=sweep")
SMALL = ("n_clients=4", "partition=iid", "model.hidden=[8]", "rounds=2", "quiet=true", "store=none")


def test_the_bits_are_those_of_single_runs(here):
    jobs = ["seed=0,1", "aggregator=mean,median", *SMALL, *WORKERS]
    assert run_command(["run", "-m", *jobs, "hydra.launcher.jobs_per_worker=1"]) == 0
    for seed, rule in ((0, "median"), (1, "mean")):
        alone = f"alone{seed}"
        single = [f"seed={seed}", f"aggregator={rule}", *SMALL, f"hydra.run.dir={alone}"]
        assert run_command(["run", *single]) == 0
        assert_same_bits(here / "sweep" / f"aggregator={rule},seed={seed}", here / alone)


def _die_at_seed_1(monkeypatch):
    """Have the process of the job with seed 1 killed in its first round, as for want of memory."""
    from fedexp.commands import execution

    rounds = execution.run_rounds

    def deadly(exp, state):
        if exp.seed == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return rounds(exp, state)

    monkeypatch.setattr(execution, "run_rounds", deadly)


def test_a_dead_worker_costs_its_job(here, monkeypatch, capfd):
    arguments = ["run", "-m", "seed=0,1,2,3", *SMALL, *WORKERS]
    with monkeypatch.context() as patch:
        _die_at_seed_1(patch)
        assert run_command(arguments) == 1
    reason = "its process died (SIGKILL; for want of memory?)"
    assert capfd.readouterr().err == f"fedexp: seed=1: failed: {reason}\n"
    status = {k: summary_of(here / "sweep" / f"seed={k}")["status"] for k in range(4)}
    assert status == {0: "complete", 1: "failed", 2: "complete", 3: "complete"}
    assert run_command(arguments) == 0  # the three are skipped
    assert summary_of(here / "sweep" / "seed=1")["status"] == "complete"


LONG = ("seed=0,1,2", "rounds=5000", "backend=in_process", *WORKERS)


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_it_ends_with_what_it_has_saved(here, sent, code):
    process = start("run", "-m", *LONG)
    for seed in (0, 1):
        wait_for_round(process, here / "sweep" / f"seed={seed}", 2)
    if sent == signal.SIGINT:  # as a terminal does
        os.killpg(process.pid, sent)
    else:
        process.send_signal(sent)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in errors
    assert _all_gone(process.pid)
    for seed in (0, 1):
        assert summary_of(here / "sweep" / f"seed={seed}")["status"] == "interrupted"


def test_workers_leave_when_the_sweep_is_killed(here):
    process = start("run", "-m", *LONG)
    wait_for_round(process, here / "sweep" / "seed=1", 2)
    process.kill()
    process.wait()
    assert _all_gone(process.pid)
    process.communicate()


def test_a_refused_job_ends_the_sweep(here, capfd):
    assert run_command(["run", "-m", "seed=0,1", *SMALL, *WORKERS]) == 0
    capfd.readouterr()
    assert run_command(["run", "-m", "seed=0,1,2", "training.lr=0.3", *SMALL, *WORKERS]) == 2
    assert "holds the results of another config" in capfd.readouterr().err
