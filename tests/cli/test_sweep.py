"""`fedexp run -m`: one folder a job, one table, failures named, complete jobs skipped."""

import csv
import json
import math
import pickle
import sys
from typing import ClassVar

import numpy as np
import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.experimental.callback import Callback

from fedexp.commands.cli import run_command
from fedexp.core.files import locked
from fedexp.core.partition import Partition
from fedexp.data import loader
from tests.support.commands import fedexp, rows_of, summary_of

pytestmark = pytest.mark.usefixtures("without_pictures")
FAST = ("debug=fast", "hydra.sweep.dir=sweep")
TABLES = {"multirun.yaml", ".report.json", "table.csv", "table.md", "summary.csv", "comparison.png"}
TABLES |= {"report.html"}


def _jobs(folder):
    return {path.name for path in folder.iterdir() if path.is_dir()}


def _table(folder):
    with open(folder / "table.csv", newline="") as file:
        return {row["job"]: row for row in csv.DictReader(file)}


def _times(folder):
    """When each file was written last; Hydra writes its own anew for every job that it calls."""
    return {
        path: path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file() and ".hydra" not in path.parts
    }


def _check_one_failure_and_a_second_start(here, capfd, arguments, failing, complete):
    assert run_command(["run", "-m", *arguments]) == 1
    said, errors = capfd.readouterr()
    assert errors.count("\n") == 1
    assert errors.startswith(f"fedexp: {failing}: failed: ")
    assert {p.name for p in (here / "sweep").iterdir() if p.is_file()} == TABLES
    assert _jobs(here / "sweep") == {failing, *complete}
    for job in complete:
        assert summary_of(here / "sweep" / job)["status"] == "complete"
    summary = summary_of(here / "sweep" / failing)
    assert summary["status"] == "failed"
    reason = errors.removeprefix(f"fedexp: {failing}: failed: ").rstrip("\n")
    assert summary["error"] == reason
    assert "Traceback" in (here / "sweep" / failing / "error.txt").read_text()

    table = _table(here / "sweep")
    assert {job for job, row in table.items() if row["status"] == "complete"} == complete
    assert table[failing]["error"] == reason
    assert reason in (here / "sweep" / "table.md").read_text()
    assert reason in said

    before = {job: _times(here / "sweep" / job) for job in (failing, *complete)}
    assert run_command(["run", "-m", *arguments]) == 1
    said, errors = capfd.readouterr()
    assert errors.startswith(f"fedexp: {failing}: failed: ")
    for job in complete:
        assert f"{job}: complete already\n" in said
        assert _times(here / "sweep" / job) == before[job]
    assert f"{failing}: starts\n" in said
    assert _times(here / "sweep" / failing) != before[failing]


def test_one_job_fails(here, capfd):
    arguments = ["aggregator=trimmed_mean", "assumed_malicious=1,5", *FAST]
    _check_one_failure_and_a_second_start(
        here, capfd, arguments, "assumed_malicious=5", {"assumed_malicious=1"}
    )


@pytest.mark.slow
def test_twelve_jobs_of_which_one_fails(here, capfd):
    sizes = range(2, 14)
    arguments = [f"n_clients={','.join(map(str, sizes))}", "assumed_malicious=1", *FAST]
    arguments += ["aggregator=trimmed_mean"]  # which needs more than two
    complete = {f"n_clients={n}" for n in sizes if n > 2}
    assert len(complete) == 11
    _check_one_failure_and_a_second_start(here, capfd, arguments, "n_clients=2", complete)


def test_a_failed_job_that_is_mended_goes_through(here, capfd):
    (here / "data").mkdir()
    arguments = ["run", "-m", "dataset=digits,mine", *FAST, "quiet=true"]
    mine = here / "conf" / "dataset" / "mine.yaml"
    mine.parent.mkdir(parents=True)
    sound = (
        "# Mine\n_target_: fedexp.data.digits.Digits\nname: digits\ninput_shape: [1, 8, 8]\n"
        "num_classes: 10\nvalidation_size: 180\ntest_size: 360\nsplit_seed: 1\n"
    )
    mine.write_text(sound.replace("test_size: 360", "test_size: 9999"))
    assert run_command(arguments) == 1
    failed = here / "sweep" / "dataset=mine"
    assert (failed / "error.txt").exists()
    mine.write_text(sound)
    assert run_command(arguments) == 0
    assert summary_of(failed)["status"] == "complete"
    assert summary_of(failed)["error"] is None
    assert not (failed / "error.txt").exists()
    capfd.readouterr()


def test_quiet(here, capfd):
    assert run_command(["run", "-m", "seed=0", *FAST, "quiet=true"]) == 0
    assert capfd.readouterr() == ("", "")


def test_the_same_sweep_has_the_same_folder(here, capfd):
    arguments = ["run", "-m", "debug=fast", "training.lr=0.1,0.2"]
    assert run_command(arguments) == 0
    assert run_command([*arguments[:2], *reversed(arguments[2:])]) == 0
    said = capfd.readouterr().out
    assert said.count(": starts\n") == 2
    assert said.count(": complete already\n") == 2
    (folder,) = (here / "outputs" / "sweeps").iterdir()
    assert _jobs(folder) == {"training.lr=0.1", "training.lr=0.2"}


def test_another_config_is_not_mixed_in(here, capfd):
    assert run_command(["run", "-m", "seed=0,1", *FAST]) == 0
    before = _times(here / "sweep" / "seed=0")
    asked_for = (here / "sweep" / "seed=0" / ".hydra" / "overrides.yaml").read_text()
    capfd.readouterr()
    assert run_command(["run", "-m", "seed=0,1", "training.lr=0.3", *FAST]) == 2
    error = capfd.readouterr().err
    assert error == (
        "fedexp: job=seed=0: holds the results of another config; take another hydra.sweep.dir\n"
    )
    assert _times(here / "sweep" / "seed=0") == before
    assert (here / "sweep" / "seed=0" / ".hydra" / "overrides.yaml").read_text() == asked_for


OWN_TABLE = ("dataset=table", "dataset.path=d.csv", "dataset.label=ill", "model.hidden=[4]")


@pytest.fixture
def own_table(here, monkeypatch):
    """A complete sweep over a table of one's own, and a second start of it."""
    rows = [f"{k % 7},{k % 5},{k % 2}" for k in range(60)]
    (here / "d.csv").write_text("\n".join(["a,b,ill", *rows, ""]))

    def start(*more):
        loader._kept.clear()  # as in a process of its own
        own = [*OWN_TABLE, "n_clients=2", "hydra/launcher=basic", "quiet=true"]
        return run_command(["run", "-m", "seed=0,1", *FAST, *own, *more])

    assert start() == 0
    return start


def _held(start, folder, capfd, words):
    before = {job: _times(folder / job) for job in _jobs(folder)}
    assert start() == 2
    said, error = capfd.readouterr()
    assert said == ""
    assert error.startswith(f"fedexp: RUN_DIR={folder / 'seed=0'}: ")
    assert words in error
    assert error.count("\n") == 1
    assert {job: _times(folder / job) for job in _jobs(folder)} == before


def test_complete_jobs_are_held_to_their_data(here, own_table, capfd):
    table = here / "d.csv"
    content = table.read_text()
    table.write_text(content.replace(",0\n", ",x\n").replace(",1\n", ",0\n"))
    _held(own_table, here / "sweep", capfd, "it was made with other data")
    wider = [f"{line},{k}" for k, line in enumerate(content.splitlines())]
    table.write_text("\n".join(wider))  # of another shape than the config's
    _held(own_table, here / "sweep", capfd, "it was made with other data or code")
    table.write_text(content)
    assert own_table() == 0
    assert capfd.readouterr() == ("", "")


def test_jobs_that_have_begun_fail_by_themselves_and_keep_their_rounds(here, own_table, capfd):
    jobs, table = [here / "sweep" / f"seed={seed}" for seed in (0, 1)], here / "d.csv"
    for job in jobs:
        summary = json.loads((job / "summary.json").read_text())
        (job / "summary.json").write_text(json.dumps({**summary, "status": "running"}))
    before = [(job / "metrics.csv").read_bytes() for job in jobs]
    content = table.read_text()
    table.write_text(content.replace("1,1,1", "2,1,1"))
    assert own_table() == 1
    failed = capfd.readouterr().err.splitlines()
    assert [line.split(":")[1:3] for line in failed[:2]] == [
        [f" {job.name}", " failed"] for job in jobs
    ]
    assert all("it was made with other data" in line for line in failed[:2])
    table.write_text(content)
    assert own_table() == 0
    assert [(job / "metrics.csv").read_bytes() for job in jobs] == before
    assert [summary_of(job)["status"] for job in jobs] == ["complete", "complete"]


@pytest.mark.parametrize("key", ["record_updates=true", "mean_last_rounds=2"])
def test_complete_jobs_are_not_asked_for_what_only_rounds_leave(here, own_table, capfd, key):
    job = here / "sweep" / "seed=0"
    before = _times(job)
    assert own_table(key) == 2
    said = key.replace("true", "True")
    assert capfd.readouterr().err == (
        f"fedexp: {said}: has an effect on rounds to come, and the run is complete: {job}\n"
    )
    assert _times(job) == before


def test_complete_jobs_stay_where_their_data_are_gone(here, own_table, capfd):
    (here / "d.csv").unlink()
    before = _times(here / "sweep" / "seed=0")
    assert own_table() == 0
    errors = capfd.readouterr().err.splitlines()
    assert [line.split(":")[1] for line in errors] == [" seed=0", " seed=1"]
    assert errors[0].endswith("dataset.path=d.csv: there is no such file")
    assert _times(here / "sweep" / "seed=0") == before
    assert own_table("training.lr=0.3") == 2
    assert "holds the results of another config" in capfd.readouterr().err


def test_complete_jobs_say_which_fedexp_computed_them(here, own_table, capfd):
    path = here / "sweep" / "seed=1" / "origin.json"
    origin = json.loads(path.read_text())
    origin["stretches"][0]["fedexp"] = "0.0.1"
    path.write_text(json.dumps(origin))
    assert own_table() == 0
    (error,) = capfd.readouterr().err.splitlines()
    assert error.startswith("fedexp: seed=1: kept as it is, and computed with others: fedexp 0.0.1")


def test_complete_jobs_are_held_to_code_of_ones_own(here, monkeypatch, capfd):
    code = (
        "from fedexp.models import mlp\n\n"
        "def own(input_shape: list, num_classes: int, hidden: list):\n"
        "    return mlp(input_shape, num_classes, hidden)\n"
    )
    (here / "ownmodel.py").write_text(code)
    monkeypatch.syspath_prepend(here)
    own = ["model._target_=ownmodel.own", "trust=[ownmodel.]", "hydra/launcher=basic"]

    def start():
        sys.modules.pop("ownmodel", None)
        return run_command(["run", "-m", "seed=0,1", *FAST, *own, "quiet=true"])

    assert start() == 0
    (here / "ownmodel.py").write_text(code.replace("hidden)", "hidden[:1])"))
    _held(start, here / "sweep", capfd, "it was made with other code of ownmodel")


def test_a_job_that_another_process_is_at_is_left_to_it(here, capfd):
    job = here / "sweep" / "seed=0"
    job.mkdir(parents=True)
    (job / "summary.json").write_text('{"status": "running"}')
    with locked(job):
        assert run_command(["run", "-m", "seed=0,1", *FAST]) == 0
    said, errors = capfd.readouterr()
    assert errors == ""
    assert "seed=0: another process is at it\n" in said
    assert sorted(path.name for path in job.iterdir()) == [".lock", "summary.json"]
    assert run_command(["run", "-m", "seed=0,1", *FAST]) == 0
    assert summary_of(job)["status"] == "complete"


def test_a_sweep_that_another_process_has_just_begun_is_left_to_it(here, capfd):
    with locked(here / "sweep" / "seed=0"), locked(here / "sweep" / "seed=1"):
        assert run_command(["run", "-m", "seed=0,1", *FAST]) == 0
    said, errors = capfd.readouterr()
    assert errors == ""
    assert said.count("another process is at it") == 2


def test_a_sweep_gives_what_alone_gives(here):
    assert run_command(["run", "debug=fast", "seed=3", "quiet=true", "hydra.run.dir=run"]) == 0
    assert run_command(["run", "-m", "seed=3", *FAST, "quiet=true"]) == 0  # a sweep of one job
    assert rows_of(here / "sweep" / "0") == rows_of(here / "run")


class Listener(Callback):
    """Hears, through Hydra, what a job gives back."""

    heard: ClassVar[list[float]] = []

    def on_job_end(self, config, job_return, **kwargs):
        self.heard.append(job_return.return_value)


@pytest.mark.parametrize("objective", ["accuracy", "loss"])
def test_a_sweeper_sees_the_objective(here, capfd, objective):
    """What Optuna, or another sweeper, optimises: validation, never test; NaN for a failure."""
    Listener.heard.clear()
    arguments = ["n_clients=4,9999", f"objective={objective}", *FAST, "quiet=true"]
    arguments += [f"+hydra.callbacks.listener._target_={__name__}.Listener"]
    assert run_command(["run", "-m", *arguments]) == 1
    capfd.readouterr()
    final = summary_of(here / "sweep" / "n_clients=4")["final"]
    given, for_a_failure = Listener.heard
    assert given == final["validation"][objective] != final["test"][objective]
    assert math.isnan(for_a_failure)
    with pytest.raises(ValueError, match="no figure"):  # by which Optuna knows a failed trial
        float(pickle.loads(pickle.dumps(for_a_failure)))


def test_a_sweeper_that_has_no_trial_to_choose_ends_with_the_table_of_failures(
    here, capfd, monkeypatch
):
    sweep = BasicSweeper.sweep

    def as_optuna(self, arguments):
        sweep(self, arguments)
        raise ValueError("No trials are completed yet.")

    monkeypatch.setattr(BasicSweeper, "sweep", as_optuna)
    assert run_command(["run", "-m", "training.lr=-1,-2", *FAST]) == 1
    said, errors = capfd.readouterr()
    assert "must be a finite number above 0" in said
    assert errors.count("\n") == 2
    assert {row["status"] for row in _table(here / "sweep").values()} == {"failed"}


@pytest.mark.slow
def test_a_preset_that_sweeps_by_itself(here, capfd):
    arguments = ["run", "experiment=hospital_collaboration", "debug=fast", "seed=0,1"]
    assert run_command(arguments) == 0
    (folder,) = (here / "outputs" / "sweeps").iterdir()
    assert folder.name.startswith("hospital_collaboration-")
    settings = ("local_only", "federated", "centralised")
    assert _jobs(folder) == {f"seed={s},setting={x}" for s in (0, 1) for x in settings}
    text = capfd.readouterr().out
    for setting in settings:
        assert f"| {setting} " in text


@pytest.mark.slow
def test_jobs_side_by_side(here):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    arguments = ["run", "-m", "seed=0,1,2", "n_clients=5,9999", *FAST]
    done = fedexp(*arguments, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    table = _table(here / "sweep")
    assert sorted(row["status"] for row in table.values()) == ["complete"] * 3 + ["failed"] * 3
    assert run_command(["run", "-m", *arguments[2:]]) == 1  # the same sweep, one after the other


def test_options_may_stand_anywhere(here):
    assert run_command(["run", "debug=fast", "-m", "quiet=true", "hydra.sweep.dir=sweep"]) == 0
    assert _jobs(here / "sweep") == {"0"}
    assert (here / "sweep" / "table.csv").exists()


class Erases:
    """A partition that writes to the data it is shown, if that is asked of it."""

    def __init__(self, erases):
        self.erases = erases

    def __call__(self, train, n_clients, rng):
        if self.erases:
            train.x.zero_()
        return Partition(train, np.array_split(np.arange(len(train)), n_clients))


def test_a_job_that_wrote_to_the_data_changes_no_other_job(here, capfd):
    own = ("partition=iid", f"partition._target_={__name__}.Erases", "+partition.erases=true,false")
    serial = ("hydra/launcher=basic", "trust=[tests.]", "store=none", "training.steps=60")
    assert run_command(["run", "-m", *FAST, *own, *serial]) == 1
    assert "changes the examples that it is given" in capfd.readouterr().err
    jobs = [summary_of(here / "sweep" / job) for job in _jobs(here / "sweep")]
    (honest,) = (job for job in jobs if job["status"] == "complete")
    assert honest["final"]["test"]["accuracy"] > 0.5
