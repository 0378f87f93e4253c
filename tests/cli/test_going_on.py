"""`fedexp resume RUN rounds=MORE` and `fedexp run from=RUN`."""

import json
import os
import shutil

import pytest
import yaml
from safetensors.torch import load_file

import fedexp
from fedexp.commands.cli import run_command
from fedexp.commands.continuation import continued
from fedexp.commands.in_python import composed
from tests.support.commands import FILES_OF_EQUAL_RUNS, summary_of
from tests.support.shared_folders import shared_folder

pytestmark = pytest.mark.usefixtures("without_pictures")

QUICK = ("training.steps=1", "training.epochs=null", "quiet=true", "plots=false", "n_clients=3")


def made(folder, *overrides):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["fedexp"])
        arguments = ["run", *QUICK, "backend=in_process", *overrides, f"hydra.run.dir={folder}"]
        assert run_command(arguments) == 0


@pytest.fixture(scope="session")
def two_rounds(tmp_path_factory):
    return shared_folder(tmp_path_factory, "two", lambda f: made(f, "rounds=2", "training.lr=0.05"))


@pytest.fixture
def short(here, two_rounds):
    """A copy of a complete run of two rounds."""
    return shutil.copytree(two_rounds, here / "short")


def refused(capfd, *arguments):
    assert run_command(list(arguments)) == 2
    (line,) = capfd.readouterr().err.splitlines()
    return line


def config_of(folder):
    return yaml.safe_load((folder / "config.yaml").read_text())


# More rounds


@pytest.mark.slow
def test_more_rounds_are_those_of_a_run_that_was_started_with_them(short, here):
    made(here / "long", "rounds=4", "training.lr=0.05")
    assert run_command(["resume", "short", "rounds=4"]) == 0
    for name in FILES_OF_EQUAL_RUNS:
        assert (short / name).read_bytes() == (here / "long" / name).read_bytes(), name
    ours, theirs = summary_of(short), summary_of(here / "long")
    assert (ours["rounds"], ours["rounds_planned"], ours["status"]) == (4, 4, "complete")
    assert ours["final"] == theirs["final"]
    assert config_of(short)["rounds_before"] == [2]
    before = (short / "model.safetensors").read_bytes()
    assert run_command(["resume", "short"]) == 0  # it is complete, and its checkpoints fit
    assert (short / "model.safetensors").read_bytes() == before


@pytest.mark.slow
def test_a_run_that_died_while_it_was_given_more_rounds_goes_on(short, here, monkeypatch):
    def die(*arguments, **named):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("fedexp.commands.execution.RunStart", die)  # the rounds are about to begin
        assert run_command(["resume", "short", "rounds=3"]) == 130
    assert config_of(short)["rounds"] == 3
    assert summary_of(short)["rounds"] == 2  # and says that it is complete
    assert run_command(["resume", "short"]) == 0
    assert summary_of(short)["rounds"] == 3


def test_rounds_are_not_taken_away_nor_anything_else_changed(short, capfd):
    assert "has 2, and can only be given more" in refused(capfd, "resume", "short", "rounds=1")
    line = refused(capfd, "resume", "short", "rounds=3", "training.lr=0.1")
    assert "would change the results" in line
    assert config_of(short)["rounds"] == 2


def test_a_studied_run_keeps_its_model(short, capfd):
    (short / "leakage").mkdir()
    assert "was studied after its 2 rounds" in refused(capfd, "resume", "short", "rounds=3")


@pytest.mark.slow
def test_an_evaluation_of_the_last_round_alone_is_said(here):
    made(here / "run", "rounds=3", "eval_every=2")
    assert run_command(["resume", "run", "rounds=4"]) == 0
    (said,) = summary_of(here / "run")["remarks"]
    assert said.startswith("round 3 was evaluated as the last of the run")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["training/schedule=cosine"], "training.schedule.rounds=2 follows from the number"),
        (
            ["model=logistic", "privacy=dp_sgd", "privacy.target_epsilon=8"],
            "the noise was calibrated for the rounds that were planned",
        ),
    ],
)
def test_what_depends_on_the_number_of_rounds_is_refused(here, capfd, overrides, said):
    made(here / "run", "rounds=2", *overrides)
    before = (here / "run" / "config.yaml").read_bytes()
    line = refused(capfd, "resume", "run", "rounds=4")
    assert said in line
    assert "fedexp run from=run" in line
    assert (here / "run" / "config.yaml").read_bytes() == before


@pytest.mark.slow
def test_a_ledger_goes_on_with_the_rounds(here):
    noise = ("model=logistic", "privacy=dp_sgd", "privacy.noise_multiplier=1")
    noise += ("privacy.target_epsilon=null",)
    made(here / "short", "rounds=2", *noise)
    made(here / "long", "rounds=4", *noise)
    assert run_command(["resume", "short", "rounds=4"]) == 0
    ours, theirs = summary_of(here / "short"), summary_of(here / "long")
    assert ours["privacy"] == theirs["privacy"]


@pytest.mark.slow
@pytest.mark.parametrize("mechanism", ["client_dp", "local_gaussian", "local_laplace"])
def test_a_ledger_of_clients_goes_on_with_the_rounds(here, mechanism):
    """Whose cohorts are as large as chance has it, and larger in the rounds to come."""
    noise = ("model=logistic", f"privacy={mechanism}", "sampler=poisson", "cohort_size=1")
    made(here / "short", "rounds=2", *noise)
    made(here / "long", "rounds=6", *noise)
    assert run_command(["resume", "short", "rounds=6"]) == 0
    ours, theirs = summary_of(here / "short"), summary_of(here / "long")
    assert ours["privacy"] == theirs["privacy"]
    assert ours["final"] == theirs["final"]


# From a run


@pytest.mark.slow
def test_a_run_from_another_takes_its_settings_and_its_model(short, here):
    made(here / "next", "from=short", "rounds=1", "training.batch_size=5", "seed=1")
    config = config_of(here / "next")
    assert (config["training"]["lr"], config["training"]["batch_size"]) == (0.05, 5)
    assert (config["rounds"], config["from"]) == (1, str(short))
    origin = summary_of(here / "next")["from"]
    assert (origin["run"], origin["rounds"]) == (str(short), 2)
    assert (
        json.loads((here / "next" / "origin.json").read_text())["weights"]
        == (origin["model_sha256"])
    )
    start, end = (load_file(f / "model.safetensors")["1.weight"] for f in (short, here / "next"))
    # One step; weights drawn from another seed lie 0.07 apart, in each of their numbers.
    assert 0 < (end - start).abs().max() < 0.01


def test_what_a_run_starts_from_is_found_from_any_folder(short, here):
    assert composed(continued(["from=short"]))[0]["from"] == str(short)
    weights = composed(["model.weights=short/model.safetensors"])[0]["model"]["weights"]
    assert weights == str(short / "model.safetensors")


@pytest.mark.slow
def test_a_chosen_group_takes_the_place_of_the_choice_and_its_keys(short, here):
    made(here / "one", "from=short", "rounds=1", "training=adam")
    made(here / "two", "from=one", "rounds=1")  # and the next one goes on from there
    for name in ("one", "two"):
        training = config_of(here / name)["training"]
        assert training["_target_"].endswith("LocalOptimizer")
        assert training["lr"] == 0.001
    known = summary_of(here / "two")["from"]["trained_on"]
    assert [run["dataset"] for run in known] == ["digits", "digits"]


@pytest.mark.slow
def test_a_run_from_another_goes_on_where_it_stands(short, here, monkeypatch, capfd):
    made(here / "next", "from=short", "rounds=2")
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    assert run_command(["resume", str(here / "next"), "rounds=3"]) == 0
    assert summary_of(here / "next")["rounds"] == 3
    assert run_command(["resume", str(short), "rounds=3"]) == 0  # which changes the model
    capfd.readouterr()
    line = refused(capfd, "resume", str(here / "next"), "rounds=4")
    assert "another file of initial weights" in line


@pytest.mark.slow
def test_from_python(short, here):
    overrides = [*QUICK, "from=short", "rounds=1", "hydra.run.dir=next"]
    run = fedexp.run(overrides)
    assert run.config["training"]["lr"] == 0.05
    assert run.summary["from"]["run"] == str(short)


def test_what_is_no_run_is_refused(here, capfd):
    line = refused(capfd, "run", "from=nowhere")
    assert line == "fedexp: from=nowhere: is not a run's folder (it has no config.yaml)"
    assert os.listdir(here) == []


@pytest.mark.parametrize(
    "override",
    ["hydra.run.dir=/tmp", "mine=1", "training.lr=${oc.env:LR}", "+hydra.job.env_set.A=1"],
)
def test_a_strangers_command_line_reaches_nothing_but_settings(short, capfd, override):
    config = config_of(short)
    config["overrides"].append(override)
    (short / "config.yaml").write_text(yaml.safe_dump(config))
    assert "which is not taken over" in refused(capfd, "run", "from=short")


@pytest.mark.slow
def test_trust_and_trackers_of_a_run_are_not_taken_over(short, here, capfd):
    config = config_of(short)
    config["overrides"] += ["tracker=mlflow", "trust=[mine.]", "leakage=lira"]
    (short / "config.yaml").write_text(yaml.safe_dump(config))
    made(here / "next", "from=short", "rounds=1")
    taken = config_of(here / "next")
    assert (taken["tracker"], taken["trust"], taken["leakage"]) == ({}, [], {})
    config["trust"] = ["mine."]
    (short / "config.yaml").write_text(yaml.safe_dump(config))
    assert "only the command line can allow it" in refused(capfd, "run", "from=short")
