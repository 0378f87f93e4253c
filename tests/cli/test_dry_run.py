"""`fedexp run --dry-run`: the plan against the run itself; and nothing is written."""

import json
from types import SimpleNamespace

import jsonschema
import numpy as np
import pytest
import torch

from fedexp.commands import planning
from fedexp.commands.cli import run_command
from fedexp.commands.schema import schema
from fedexp.commands.sweep_jobs import jobs_of
from fedexp.core.checks import InputError
from fedexp.core.types import ClientTask, Updates
from tests.support.commands import summary_of

pytestmark = pytest.mark.usefixtures("without_pictures")
SMALL = ("n_clients=4", "model.hidden=[8]", "rounds=3", "training.epochs=1", "quiet=true")


@pytest.fixture
def plan(here, capfd):
    def ask(*arguments):
        capfd.readouterr()
        assert run_command(["run", "--dry-run", *arguments, "--json"]) == 0
        found = json.loads(capfd.readouterr().out)
        jsonschema.Draft202012Validator(schema(found["schema"].split("/")[0])).validate(found)
        assert list(here.iterdir()) == []
        return found

    return ask


def _as_it_was(here, plan, *arguments):
    """The plan, and the summary of the run that was planned."""
    planned = plan(*arguments)
    assert run_command(["run", *arguments, "hydra.run.dir=run"]) == 0
    return planned, summary_of(here / "run")


def test_what_is_planned_is_what_comes(here, plan):
    planned, summary = _as_it_was(here, plan, *SMALL, "eval_every=2")
    for key in ("bytes_up", "bytes_down", "parameters"):
        assert planned[key] == summary[key], key
    assert planned["rounds"] == summary["rounds"]
    assert planned["evaluations"] == 2  # after rounds 2 and 3
    assert planned["privacy"] is None
    assert planned["seconds"] > 0


def test_evaluations_by_the_clock_are_fewer_than_rounds(plan, monkeypatch):
    monkeypatch.setattr(planning, "SHARE_OF_TIME", 0.0)
    planned = plan(*SMALL, "eval_every=auto")
    assert planned["evaluations"] == 2  # the first of three and the last
    assert planned["seconds"] >= 2 * planned["seconds_a_round"]["evaluate"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        ["privacy=dp_sgd"],
        ["privacy=client_dp", "sampler=poisson", "cohort_size=2", "rounds=12"],
        ["privacy=dp_sgd", "privacy.max_epsilon=22", "rounds=9"],
        ["privacy=local_gaussian", "cohort_size=2"],
        ["channel=secure_aggregation"],
        ["algorithm=scaffold", "attack=alie"],
        ["aggregator=fltrust", "worker_momentum=momentum"],
        ["attack=sign_flip", "attack.extra_clients=true"],
        ["setting=centralised"],
        ["setting=local_only"],
        ["channel=block_means", "backend=in_process"],
    ],
    ids="_".join,
)
def test_privacy_and_bytes_are_those_of_the_run(here, plan, more):
    planned, summary = _as_it_was(here, plan, *SMALL, *more)
    assert planned["rounds_within_max_epsilon"] == summary["rounds"]
    if summary.get("privacy"):
        assert planned["privacy"]["epsilon"] == pytest.approx(summary["privacy"]["epsilon"])
    if "sampler=poisson" not in more:  # whose cohorts have any size
        assert planned["bytes_up"] == summary["bytes_up"]


def test_a_plan_to_read(here, capfd):
    assert run_command(["run", "--dry-run", *SMALL]) == 0
    said, errors = capfd.readouterr()
    assert "nothing was written" in said
    assert "4 of 4 clients a round" in said
    assert "nothing is promised" in said
    assert errors == ""
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["aggregator=krum", "assumed_malicious=4"], "needs at least 2 x 4 + 3 clients"),
        (["hydra.run.dir=/dev/null"], "is a file, not a folder"),
        (["seed=0,1"], "several values need fedexp run -m"),
        (["dataset=mnist", "model=mlp"], "fedexp data get mnist"),
    ],
)
def test_what_would_be_refused_is(here, capfd, monkeypatch, arguments, words):
    monkeypatch.setenv("FEDEXP_DATA_DIR", str(here / "nothing"))
    assert run_command(["run", "--dry-run", *arguments]) == 2
    said, error = capfd.readouterr()
    assert words in error
    assert (said, error.count("\n")) == ("", 1)
    assert list(here.iterdir()) == []


def test_a_sweep_says_which_jobs_would_be_refused(plan):
    found = plan("-m", "aggregator=mean,krum", *SMALL, "assumed_malicious=1")
    assert found["jobs"] == 2
    refused = {job["job"].split()[0]: job["refused"] for job in found["tried"]}
    assert refused["aggregator=mean"] is None
    assert "needs at least 2 x 1 + 3" in refused["aggregator=krum"]
    seconds = next(job["plan"]["seconds"] for job in found["tried"] if job["plan"])
    assert found["seconds"] * found["at_once"] == pytest.approx(2 * seconds)


def test_a_sweep_over_a_key_that_there_is_not_says_so(plan):
    found = plan("-m", "nope=1,2", *SMALL)
    assert ["there is no such key" in job["refused"] for job in found["tried"]] == [True, True]


@pytest.mark.slow
def test_a_long_sweep_is_not_tried_whole(plan, monkeypatch):
    monkeypatch.setattr("fedexp.commands.dry_run.PATIENCE", 0.0)
    found = plan("-m", "seed=range(40)", "partition=iid,dirichlet", *SMALL)
    assert found["jobs"] == 80
    assert len(found["tried"]) == 1


def test_jobs_are_those_of_the_sweeper():
    params = {"params": {"aggregator": "mean,median", "seed": "range(3)"}}
    jobs = jobs_of(params, ["seed=7,8", "rounds=2"])  # what is said wins over the preset
    assert jobs == [
        ["aggregator=mean", "seed=7", "rounds=2"],
        ["aggregator=mean", "seed=8", "rounds=2"],
        ["aggregator=median", "seed=7", "rounds=2"],
        ["aggregator=median", "seed=8", "rounds=2"],
    ]
    for sweeper, said in (({}, ["training.lr=interval(0,1)"]), ({"n_trials": 9}, ["seed=1,2"])):
        with pytest.raises(InputError, match="as it goes"):
            jobs_of(sweeper, said)


def test_one_client_stands_for_all(monkeypatch):
    """Sizes 1, 4, 10: client 1 is nearest to the mean of 5. It takes 0.4 s, then 0.2 s."""
    clock = iter([0.0, 0.4, 1.0, 1.2])
    monkeypatch.setattr(planning, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    asked = []

    def train(trainer, tasks):
        asked.extend(task.client_id for task in tasks)
        return Updates(torch.ones(1, 2), (1,), torch.ones(1), metrics=({"loss": 1.0},), kept=({},))

    backend = planning.OneForAll(SimpleNamespace(train=train), np.array([1, 4, 10]))
    tasks = [ClientTask(k, torch.zeros(2), 0, 0) for k in range(3)]
    rows = backend.train(None, tasks)
    assert asked == [1, 1]  # 0.6 s are more than half a second: no third time
    assert rows.matrix.tolist() == [[1.0, 1.0]] * 3
    assert rows.num_examples.tolist() == [1.0, 4.0, 10.0]
    assert backend.unmeasured == pytest.approx(3 * 0.2 - 0.6)
