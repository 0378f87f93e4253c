"""A run that was killed goes on as if nothing had happened, whatever the kill left behind."""

import json
import re
import shutil
import time
from collections import OrderedDict
from dataclasses import replace

import pytest

from fedexp.commands.cli import run_command
from fedexp.core.files import locked
from fedexp.data.digits import Digits
from tests.support.commands import (
    FILES_OF_EQUAL_RUNS,
    assert_same_bits,
    kill,
    start,
    summary_of,
    wait_for_round,
)
from tests.support.older_versions import as_in_version_0_1

pytestmark = pytest.mark.usefixtures("without_pictures")
slow = pytest.mark.slow


@pytest.fixture
def killed(here, killed_run):
    """A copy of the killed run's folder, to do with as one likes."""
    return shutil.copytree(killed_run, here / "killed")


def test_the_kill_came_in_the_middle(killed):
    summary = summary_of(killed)
    assert (summary["status"], summary["rounds_planned"]) == ("running", 6)
    assert 1 <= summary["rounds"] <= 3
    assert "final" in summary


def test_resumed_equals_uninterrupted(killed, whole_run, capfd):
    assert run_command(["resume", "killed"]) == 0
    assert capfd.readouterr() == ("", "")
    assert_same_bits(killed, whole_run)


def test_resumed_with_other_workers_equals_uninterrupted(killed, whole_run):
    assert summary_of(whole_run)["peak_memory_of_a_worker_mb"] is None
    assert run_command(["resume", "killed", "backend=process_pool", "backend.workers=2"]) == 0
    assert_same_bits(killed, whole_run)
    assert 50 < summary_of(killed)["peak_memory_of_a_worker_mb"] < 10_000


@slow
def test_killed_and_resumed_twice_equals_uninterrupted(killed, whole_run):
    process = start("resume", str(killed))
    wait_for_round(process, killed, 4)
    kill(process)
    assert summary_of(killed)["status"] == "running"
    assert run_command(["resume", "killed"]) == 0
    assert_same_bits(killed, whole_run)


@slow
def test_killed_at_any_moment(here, whole_run, killed_run):
    shutil.copytree(killed_run, here / "run")
    pause = 1.5
    while summary_of(here / "run")["status"] == "running":
        process = start("resume", "run")
        time.sleep(pause)
        kill(process)
        pause += 0.13
    assert run_command(["resume", "run"]) == 0
    assert_same_bits(here / "run", whole_run)


def test_a_run_of_an_older_version_goes_on(killed, whole_run):
    as_in_version_0_1(killed)
    (killed / "clients.bin").write_bytes(b"fxc1 half a frame")  # of a resume that was killed
    assert run_command(["resume", "killed"]) == 0
    for name in FILES_OF_EQUAL_RUNS:
        assert (killed / name).read_bytes() == (whole_run / name).read_bytes(), name
    kept = [{p.name for p in (run / "checkpoints").iterdir()} for run in (killed, whole_run)]
    assert kept[0] - {"best.json"} == kept[1]
    assert not (killed / "metrics.jsonl").exists()


@slow
def test_an_older_record_that_was_cut_costs_rounds_and_no_bit(killed, whole_run, capfd):
    as_in_version_0_1(killed)
    path = killed / "metrics.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:1]))
    assert run_command(["resume", "killed"]) == 0
    assert "the record holds 1 rows of its rounds, not " in capfd.readouterr().err
    assert_same_bits(killed, whole_run)


def _cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def _flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("{newest}.pt", _flip_a_bit),
        pytest.param("{newest}.pt", _cut, marks=slow),
        pytest.param("{newest}.pt", _empty, marks=slow),
    ],
)
def test_a_damaged_checkpoint_costs_a_round_and_no_bit(killed, whole_run, capfd, damage, name):
    newest = max((killed / "checkpoints").glob("round-*.pt"))
    damage(killed / "checkpoints" / name.format(newest=newest.stem))
    assert run_command(["resume", "killed"]) == 0
    said, warning = capfd.readouterr()
    assert said == ""
    assert warning.count("\n") == 1
    assert f"{newest.name} cannot be used" in warning
    assert_same_bits(killed, whole_run)


def test_without_a_usable_checkpoint_it_starts_again(killed, whole_run, capfd):
    damaged = list((killed / "checkpoints").glob("*.pt"))
    for path in damaged:
        _flip_a_bit(path)
    assert run_command(["resume", "killed"]) == 0
    *each, last = capfd.readouterr().err.splitlines()
    assert len(each) == len([path for path in damaged if path.stem != "best"])
    assert "starting again from the first round" in last
    assert_same_bits(killed, whole_run)


def test_rounds_of_which_no_checkpoint_is_there(killed, whole_run, capfd):
    shutil.rmtree(killed / "checkpoints")
    (killed / "checkpoints").mkdir()
    assert run_command(["resume", "killed"]) == 0
    assert capfd.readouterr().err == (
        "no checkpoint can be used: starting again from the first round\n"
    )
    assert_same_bits(killed, whole_run)


@pytest.mark.parametrize("name", ["metrics.csv", pytest.param("clients.bin", marks=slow)])
@pytest.mark.parametrize("lost", [17, pytest.param(10**6, marks=slow)])
def test_a_record_that_lost_its_end_with_the_power(killed, whole_run, name, lost):
    path = killed / name
    path.write_bytes(path.read_bytes()[:-lost])
    assert run_command(["resume", "killed"]) == 0
    assert_same_bits(killed, whole_run)


@slow
def test_whatever_is_not_flushed_may_be_gone_with_the_power(killed, whole_run):
    flushed = ("config.yaml", "origin.json")
    for path in (path for path in killed.iterdir() if path.is_file() and path.name not in flushed):
        path.write_bytes(b"")
    assert run_command(["resume", "killed"]) == 0
    assert_same_bits(killed, whole_run)


def test_leftovers_of_a_write_are_cleared_away(killed, whole_run):
    (killed / ".0123456789abcdef.tmp").write_bytes(b"half")
    (killed / "checkpoints" / ".fedcba9876543210.tmp").write_bytes(b"half")
    (killed / "summary.json").write_bytes(b"")
    assert run_command(["resume", "killed"]) == 0
    assert not list(killed.rglob("*.tmp"))
    assert_same_bits(killed, whole_run)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("leakage=idlg", "leakage=idlg: a run is attacked by: fedexp leakage RUN leakage=NAME"),
        ("training.foo=1", "training.foo=1: It is not in the run's config.yaml"),
        ("training.lr=0.2", "training.lr=0.2: would change the results"),
        ("seed=1", "would change the results"),
        ("rounds=5", "rounds=5: the run has 6, and can only be given more"),
        ("rounds=null", "rounds=null: cannot be read: must be a whole number, and not null"),
        ("dataset.split_seed=3", "would change the results"),
        ("aggregator=median", "would change the results"),
        ("bakend=process_pool", "did you mean backend?"),
        ("backend=proces_pool", "did you mean process_pool?"),
        ("backend.workers=0", "backend.workers=0: must be a whole number, 1 or above"),
        ("backend.workers=x", "backend.workers=x: must be a whole number"),
        ("backend.workers=[1", "cannot be read"),
        ("quiet=perhaps", "must be true or false"),
        ("quiet", "must look like key=value"),
        ("--force", "unrecognized arguments: --force"),
        ("backend=blocks", "mean_last_rounds, backend (but to none with own_bits: true)"),
        ("trust=x", "must be a list, as in [a,b]"),
    ],
)
def test_what_cannot_be_changed(killed, capfd, override, words):
    before = {p: p.read_bytes() for p in killed.rglob("*") if p.is_file()}
    assert run_command(["resume", "killed", override]) == 2
    said, error = capfd.readouterr()
    assert (said, error.count("\n")) == ("", 1)
    assert error.startswith("fedexp: ")
    assert words in error
    assert {p: p.read_bytes() for p in killed.rglob("*") if p.is_file()} == before


def test_what_was_null_may_be_given(killed):
    assert run_command(["resume", "killed", "mean_last_rounds=2"]) == 0
    assert "mean_last_rounds" in summary_of(killed)


@pytest.mark.parametrize(
    "override",
    ["record_updates=True", "mean_last_rounds=2", "checkpoint_every=2", "tracker=tensorboard"],
)
def test_what_only_rounds_leave_is_not_asked_of_a_complete_run(here, whole_run, capfd, override):
    whole = shutil.copytree(whole_run, here / "whole")
    assert run_command(["resume", "whole", override]) == 2
    said = capfd.readouterr().err
    assert said.startswith(f"fedexp: {override}: has an effect on rounds to come, and the run is c")
    assert not (whole / "updates").exists()


@pytest.mark.parametrize("folder", ["killed", "whole"])
def test_a_store_has_no_effect_on_a_run_that_goes_on(here, killed, whole_run, capfd, folder):
    shutil.copytree(whole_run, here / "whole")
    assert run_command(["resume", folder, "store=kept"]) == 2
    assert capfd.readouterr().err.startswith("fedexp: store=kept: has no effect on a run that goes")
    assert not (here / "kept").exists()


def test_a_config_that_was_edited_is_noticed(killed, capfd):
    path = killed / "config.yaml"
    path.write_text(path.read_text().replace("lr: 0.1", "lr: 0.2"))
    assert run_command(["resume", "killed"]) == 2
    assert "is not the one that its checkpoints were made with" in capfd.readouterr().err


def test_more_rounds_that_are_refused_are_not_written_down(killed, capfd):
    path = killed / "config.yaml"
    path.write_text(edited := path.read_text().replace("lr: 0.1", "lr: 0.2"))
    assert run_command(["resume", "killed", "rounds=8"]) == 2
    assert "is not the one that its checkpoints were made with" in capfd.readouterr().err
    assert path.read_text() == edited


@pytest.mark.parametrize("content", ["", "- 1\n", "a: [1\n", "seed: 0\n", "\0"])
def test_a_broken_config_is_refused(killed, capfd, content):
    (killed / "config.yaml").write_text(content)
    assert run_command(["resume", "killed"]) == 2
    said, error = capfd.readouterr()
    assert (said, error.count("\n")) == ("", 1)
    assert error.startswith("fedexp: ")


def test_other_data_are_another_experiment(killed, capfd, monkeypatch):
    whole = Digits.__call__

    def with_one_other_pixel(self, data_dir):
        dataset = whole(self, data_dir)
        x = dataset.test.x.clone()
        x[0, 0, 3, 3] = 16 - x[0, 0, 3, 3]
        return replace(dataset, test=replace(dataset.test, x=x))

    monkeypatch.setattr(Digits, "__call__", with_one_other_pixel)
    monkeypatch.setattr("fedexp.data.loader._kept", OrderedDict())
    before = {p: p.read_bytes() for p in killed.rglob("*") if p.is_file()}
    assert run_command(["resume", "killed"]) == 2
    error = capfd.readouterr().err
    assert error.startswith("fedexp: RUN_DIR=killed: it was made with other data: ")
    assert error.count("\n") == 1
    log = killed / "fedexp.log"
    assert {p: c for p, c in before.items() if p != log} == {
        p: p.read_bytes() for p in killed.rglob("*") if p.is_file() and p != log
    }


def test_another_processor_is_said_in_the_record(killed, capfd):
    path = killed / "origin.json"
    origin = json.loads(path.read_text())
    (stretch,) = origin["stretches"]
    here = stretch["kernels"]
    path.write_text(json.dumps({**origin, "stretches": [{**stretch, "kernels": "ALTIVEC"}]}))
    assert run_command(["resume", "killed"]) == 0
    # The kill may have come between a checkpoint and the summary: which round is not said here.
    told = re.search(rf"from round \d+ on: kernels ALTIVEC -> {here}; ", capfd.readouterr().err)
    assert told is not None
    said = told[0]
    (remark,) = summary_of(killed)["remarks"]
    assert remark.startswith(said)
    assert said in (killed / "report.md").read_text()
    assert summary_of(killed)["hardware"]["kernels"] == here


def test_two_processes_do_not_share_a_folder(killed, whole_run, capfd):
    with locked(killed):
        assert run_command(["resume", "killed"]) == 2
    error = capfd.readouterr().err
    assert error == "fedexp: RUN_DIR=killed: another process is writing to this run folder\n"
    assert run_command(["resume", "killed"]) == 0
    assert_same_bits(killed, whole_run)
