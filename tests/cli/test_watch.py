"""`fedexp watch`: what the files of a run or a sweep say of how far it is."""

import json
import signal
import subprocess
import time

import jsonschema
import pytest

from fedexp.commands import progress
from fedexp.commands.cli import run_command
from fedexp.commands.schema import schema
from fedexp.commands.sweep_folder import sweep_overrides
from fedexp.commands.sweep_jobs import MOST, number_of
from fedexp.core.files import locked
from tests.support.commands import FEDEXP

SWEEP = """\
hydra:
  overrides: {task: ["seed=0,1", "aggregator=mean,median", "rounds=8"]}
  sweeper: {params: {aggregator: "mean,krum,median"}}
"""


def write(folder, status, rounds, seconds=None, **more):
    folder.mkdir(parents=True, exist_ok=True)
    said = {"status": status, "rounds": rounds, "rounds_planned": 8, "seconds": seconds, **more}
    (folder / "summary.json").write_text(json.dumps(said))


def test_a_run_that_goes_on(here, capfd):
    write(here / "run", "running", 2, 6.0, final={"validation": {"accuracy": 0.91234}})
    with locked(here / "run"):
        now = progress.watched(here / "run").look()
        assert (now.status, now.done, now.total) == ("running", 2, 8)
        assert now.seconds_left == pytest.approx(18)  # 3 s a round, 6 rounds
        assert now.text == "round 2 of 8, validation accuracy 0.912, about 18 s left"
        assert run_command(["watch", "run", "--once"]) == 0
    assert capfd.readouterr().out == f"running: {now.text}\n"


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        ("complete", 0, "complete: round 8 of 8, complete"),
        ("interrupted", 1, "interrupted: round 8 of 8, interrupted"),
        ("failed", 1, "failed: round 8 of 8, failed: no space"),
        ("running", 1, "gone: round 8 of 8, its process is gone; fedexp resume goes on"),
    ],
)
def test_a_run_that_is_over(here, capfd, status, code, words):
    write(here / "run", status, 8, 6.0, error="no space" if status == "failed" else None)
    assert run_command(["watch", "run"]) == code
    assert capfd.readouterr() == (f"{words}\n", "")


def test_a_sweep(here):
    (here / "multirun.yaml").write_text(SWEEP)
    write(here / "seed=0,aggregator=mean", "complete", 8, 10.0)
    write(here / "seed=1,aggregator=mean", "failed", 3, 5.0)
    write(here / "seed=0,aggregator=median", "running", 4, 7.0)
    with locked(here / "seed=0,aggregator=median"):
        now = progress.watched(here).look()
    assert (now.status, now.total, now.failed) == ("running", 4, 1)
    assert now.done == pytest.approx(2.5)
    assert now.seconds_left == pytest.approx(7.5 * 1.5)  # the mean of those that are over
    said = "job 3 of 4, 1 done, 1 failed, about 11 s left: seed=0,aggregator=median 4/8"
    assert now.text == said


def test_a_sweep_ends_with_its_last_job(here, capfd):
    (here / "multirun.yaml").write_text(SWEEP)
    for k in range(4):
        write(here / f"job{k}", "complete", 8, 1.0)
    assert run_command(["watch", str(here), "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    jsonschema.Draft202012Validator(schema("progress")).validate(found)
    assert (found["kind"], found["done"], found["status"]) == ("sweep", 4, "complete")
    write(here / "job3", "failed", 2)
    assert run_command(["watch", str(here)]) == 1


def test_a_sweep_that_nobody_works_at_is_not_waited_for(here, monkeypatch):
    (here / "multirun.yaml").write_text(SWEEP)
    write(here / "job0", "complete", 8, 1.0)
    sweep = progress.watched(here)
    assert sweep.look().status == "running"  # the next job may be about to start
    monkeypatch.setattr(progress, "IDLE", 0.0)
    assert sweep.look().status == progress.GONE


def test_lines_come_when_there_is_something_new(here, capfd, monkeypatch):
    write(here / "run", "running", 1, 1.0)
    steps = iter([1, 1, 2, 8])

    def sleep(seconds):
        done = next(steps)
        write(here / "run", "running" if done < 8 else "complete", done, float(done))

    monkeypatch.setattr(progress.time, "sleep", sleep)
    with locked(here / "run"):
        assert run_command(["watch", "run"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "round 1 of 8",
        "round 2 of 8",
        "complete: round 8 of 8",
    ]


@pytest.mark.parametrize("what", ["nowhere", "."])
def test_what_is_no_run_is_refused(here, capfd, what):
    assert run_command(["watch", what]) == 2
    assert f"RUN_OR_SWEEP={what}: " in capfd.readouterr().err


def test_a_strangers_sweep_of_a_billion_jobs_is_not_counted():
    assert number_of({}, ["seed=range(1000000000)"]) is None
    assert number_of({}, [f"seed=range({MOST - 1})", "rounds=1,2"]) == 2 * (MOST - 1)
    assert number_of({"n_trials": 20}, ["seed=1,2"]) is None
    assert number_of({}, ["training.lr=interval(0,1)"]) is None


def test_a_file_that_says_nonsense_is_not_believed(here):
    (here / "multirun.yaml").write_text("hydra: [1]\n")
    write(here / "job0", "complete", 8, 1.0)
    assert progress.watched(here).look().total is None


def test_a_sweeps_folder_is_named_by_what_is_swept(here):
    def folder(*overrides):
        return sweep_overrides(overrides)[0].removeprefix("hydra.sweep.dir=")

    named = folder("seed=0,1", "privacy.delta=1e-5,1e-6", "rounds=3")
    assert named.startswith("outputs/sweeps/seed-delta-")
    assert folder("experiment=quickstart", "seed=1,2").startswith("outputs/sweeps/quickstart-")
    before = here / named.replace("seed-delta", "sweep")  # of an older version
    before.mkdir(parents=True)
    again = folder("seed=0,1", "privacy.delta=1e-5,1e-6", "rounds=3")
    assert here / again == before


@pytest.mark.slow
def test_ctrl_c_ends_it_without_a_word(here):
    write(here / "run", "running", 1, 1.0)
    with locked(here / "run"):
        watching = subprocess.Popen(
            [*FEDEXP, "watch", "run"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert watching.stdout.readline().startswith("round 1 of 8")
        time.sleep(0.1)
        watching.send_signal(signal.SIGINT)
        assert watching.communicate() == ("", "")
    assert watching.returncode == 130
