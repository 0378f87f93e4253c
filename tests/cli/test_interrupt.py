"""Ctrl-C, SIGTERM, and a reader that goes away: a word how to go on, and no process stays."""

import os
import shlex
import signal
import subprocess
import time

import pytest

from tests.support.commands import FEDEXP, alive_in_group, fedexp, start, summary_of, wait_for_round

IN_PROCESS = ("backend=in_process", "plots=false")
POOL = ("backend=process_pool", "backend.workers=2", "plots=false")
slow = pytest.mark.slow


@pytest.mark.parametrize(
    ("sent", "code", "backend"),
    [
        pytest.param(signal.SIGINT, 130, IN_PROCESS, marks=slow),
        pytest.param(signal.SIGINT, 130, POOL),
        pytest.param(signal.SIGTERM, 143, IN_PROCESS),
        pytest.param(signal.SIGTERM, 143, POOL, marks=slow),
        pytest.param(signal.SIGHUP, 129, POOL, marks=slow),
    ],
)
def test_a_signal_ends_the_run_but_not_its_results(here, sent, code, backend):
    folder = here / "a run"
    process = start("run", "rounds=5000", "hydra.run.dir='a run'", *backend)
    wait_for_round(process, folder, 2)
    if sent in (signal.SIGINT, signal.SIGHUP):
        os.killpg(process.pid, sent)  # a terminal sends it to all
    else:
        process.send_signal(sent)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == code
    summary = summary_of(folder)
    assert summary["status"] == "interrupted"
    hint = f"fedexp resume {shlex.quote(str(folder))}"
    assert errors == f"stopped after round {summary['rounds']}; go on with: {hint}\n"
    assert _all_gone(process.pid)


@slow
def test_the_workers_of_a_killed_process_go_too(here):
    process = start("run", "rounds=5000", "hydra.run.dir=run", *POOL)
    wait_for_round(process, here / "run", 2)
    assert len(alive_in_group(process.pid)) >= 3
    process.kill()
    process.wait()
    assert _all_gone(process.pid)
    process.communicate()


def _all_gone(group: int) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if not alive_in_group(group):
            return True
        time.sleep(0.05)
    return False


@slow
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_jobs_side_by_side_end_together(here, sent, code):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    jobs = ["seed=0,1,2", "rounds=5000", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    process = start("run", "-m", *jobs, "hydra.sweep.dir=sweep", *IN_PROCESS)
    wait_for_round(process, here / "sweep" / "seed=1", 2)
    if sent == signal.SIGINT:
        os.killpg(process.pid, sent)
    else:
        process.send_signal(sent)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == code
    assert "Traceback" not in errors
    assert _all_gone(process.pid)


@slow
def test_a_sweep_that_was_interrupted_goes_on(here):
    one_by_one = ["hydra.launcher.workers=1", "hydra.sweep.dir=sweep"]
    arguments = ["run", "-m", "seed=0,1", "debug=fast", "rounds=60", *one_by_one]
    process = start(*arguments)
    wait_for_round(process, here / "sweep" / "seed=0", 3)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    before = (here / "sweep" / "seed=0" / "metrics.csv").read_bytes()
    done = fedexp(*arguments)
    assert done.returncode == 0, done.stderr
    assert "seed=0: goes on\n" in done.stdout
    assert "seed=1: starts\n" in done.stdout
    kept = before[: before.rindex(b"\n3,")]
    assert (here / "sweep" / "seed=0" / "metrics.csv").read_bytes().startswith(kept)
    assert summary_of(here / "sweep" / "seed=0")["rounds"] == 60


@pytest.mark.parametrize("arguments", [["list"], ["--help"], ["run", "--help"]])
def test_an_answer_whose_reader_is_gone(here, arguments):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*FEDEXP, *arguments], stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


@slow
def test_a_run_whose_reader_goes_away(here):
    with start("run", "rounds=5000", "hydra.run.dir=run", *IN_PROCESS) as process:
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode == 141
    assert errors.startswith("stopped after round ")
    assert errors.count("\n") == 1
    assert summary_of(here / "run")["status"] == "interrupted"


@slow
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_outputs(here, closed):
    command = f"{shlex.join(FEDEXP)} run debug=fast hydra.run.dir=run {closed}"
    assert subprocess.run(["sh", "-c", command], check=False).returncode == 0
    assert summary_of(here / "run")["status"] == "complete"
