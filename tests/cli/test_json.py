"""`--json`: one document on stdout, whatever happens, and none with a key that its schema lacks."""

import json
import math
import re
import shutil

import jsonschema
import pytest

from fedexp.commands.cli import run_command
from fedexp.commands.model_files import Attacked
from fedexp.commands.schema import names, schema
from fedexp.config.folders import conf_folder
from fedexp.core.checks import InputError
from fedexp.run_folder.findings import StudyRecord
from tests.support.own_files import make_images

pytestmark = pytest.mark.usefixtures("without_pictures")
SMALL = ("n_clients=3", "model.hidden=[8]", "rounds=1", "training.epochs=1", "plots=false")


def _refuse(constant):
    raise AssertionError(f"{constant} is not JSON")


@pytest.fixture
def asked(here, capfd):
    """Carries out a command line with --json: the exit code, and the valid document."""

    def ask(*arguments):
        capfd.readouterr()
        code = run_command([*arguments, "--json"])
        said = capfd.readouterr().out
        document = json.loads(said, parse_constant=_refuse)
        assert said.endswith("}\n")
        check(document)
        return code, document

    return ask


def check(document):
    name, _, version = document["schema"].partition("/")
    assert version == "1"
    jsonschema.Draft202012Validator(schema(name)).validate(document)


@pytest.fixture(scope="session")
def small_run(tmp_path_factory):
    """A run, studied, with the updates of its clients. To be copied, not changed."""
    folder = tmp_path_factory.mktemp("json") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["fedexp"])
        patch.setattr("fedexp.reporting.plots.write_run_plots", lambda *asked: [])
        asked = [
            "run",
            *SMALL,
            "leakage=loss_threshold",
            "record_updates=safetensors",
            "n_clients=9",
        ]
        assert run_command([*asked, "quiet=true", f"hydra.run.dir={folder}"]) == 0
    return folder


@pytest.fixture
def run(small_run, here):
    return shutil.copytree(small_run, here / "run")


def test_a_run(asked, here):
    code, found = asked("run", *SMALL, "quiet=true", "hydra.run.dir=new")
    assert code == 0
    assert found["status"] == "complete"
    assert found["rounds"] == 1
    assert 0 < found["final"]["test"]["accuracy"] < 1
    assert found["privacy"] is None
    assert found["files"]["metrics"] == str(here / "new" / "metrics.csv")
    assert found["files"]["plots"] is None


@pytest.mark.slow
@pytest.mark.parametrize("privacy", ["client_dp", "dp_sgd", "local_gaussian", "local_laplace"])
def test_a_promise(asked, privacy):
    code, found = asked("run", *SMALL, f"privacy={privacy}", "quiet=true", "hydra.run.dir=new")
    assert code == 0
    assert found["privacy"]["epsilon"] > 0
    assert found["privacy"]["noise"]


def test_what_is_said_of_a_run_is_what_its_folder_holds(asked, run):
    _, found = asked("report", "run")
    summary = json.loads((run / "summary.json").read_text())
    for key in ("status", "rounds", "seconds", "final", "mean_last_5", "parameters", "leakage"):
        assert found[key] == summary[key], key
    assert asked("resume", "run") == (0, found)


@pytest.mark.slow
def test_a_run_once_more_that_comes_out_otherwise(asked, run):
    metrics = run / "metrics.csv"
    metrics.write_text(re.sub(r"(test,all,accuracy),\S+", r"\1,0.5", metrics.read_text()))
    (run / "model.safetensors").write_bytes(b"")
    code, found = asked("rerun", "run", "hydra.run.dir=again", "leakage=none", "quiet=true")
    assert code == 1
    assert found["same"] is False
    assert [(one["metric"], one["then"]) for one in found["different"]] == [("accuracy", 0.5)]
    assert found["run"]["folder"].endswith("again")


def test_several_runs_differ_in_their_settings(asked, run, here):
    other = shutil.copytree(run, here / "other")
    config = (other / "config.yaml").read_text()
    (other / "config.yaml").write_text(re.sub(r"(?m)^seed: 0$", "seed: 1", config))
    code, found = asked("report", "run", "other", "--out", "tables")
    assert code == 0
    assert {job["job"]: job["settings"] for job in found["jobs"]} == {
        "other": {"seed": 1},
        "run": {"seed": 0},
    }


@pytest.mark.slow
def test_a_sweep_with_a_job_that_fails(asked):
    sweep = ("-m", "aggregator=mean,krum", "assumed_malicious=2", "hydra/launcher=basic")
    code, found = asked("run", *SMALL, *sweep, "quiet=true", "hydra.sweep.dir=sweep")
    assert code == 1
    status = {job["job"]: job["run"]["status"] for job in found["jobs"]}
    assert status == {"aggregator=krum": "failed", "aggregator=mean": "complete"}
    assert "needs at least 2 x 2 + 3" in found["jobs"][0]["run"]["error"]


@pytest.mark.slow
def test_studies(asked, run):
    code, found = asked("leakage", "run", "leakage=loss_threshold")
    assert code == 0
    assert [one["name"] for one in found["studies"]] == ["loss_threshold"]
    assert 0 <= found["studies"][0]["headline"]["auc"] <= 1


@pytest.fixture
def attacked(monkeypatch):
    """Has every file of weights attacked already: B knew other members, and another seed."""
    headline = {"auc": 0.75, "auc_null_low": 0.5, "auc_null_high": math.nan}

    def found(path, *options):
        of_b = path.name == "b.pth"
        study = StudyRecord(
            folder=path.parent / "out" / "leakage" / "loss_threshold",
            name="loss_threshold",
            study="LossThreshold",
            settings={"permutations": 40 + of_b},
            headline=headline,
            conclusions=("Members are known.",),
            adversary="sees the model",
            seconds=0.5,
        )
        conditions = {"members": "train", "seed": int(of_b), "dataset": {"_target_": "x.Digits"}}
        return Attacked(path, path.parent / "out", (study,), conditions, ("it was said",))

    for module in ("model_files", "comparison"):
        monkeypatch.setattr(f"fedexp.commands.{module}.attack_file", found)
    monkeypatch.setattr("fedexp.reporting.leakage.studies_report", lambda found: ("", "told"))


def test_a_file_of_weights(asked, attacked, here):
    for name in ("a.pth", "b.pth"):
        (here / name).touch()
    code, found = asked("leakage", "a.pth", "--model", "mlp", "leakage=loss_threshold")
    assert code == 0
    assert (found["name"], found["path"], found["folder"]) == ("a.pth", "a.pth", "out")
    assert found["conditions"] == {
        "members": "train",
        "seed": 0,
        "dataset": {"_target_": "x.Digits"},
    }
    assert found["assumed"] == ["it was said"]
    (study,) = found["studies"]
    assert study["headline"] == {"auc": 0.75, "auc_null_low": 0.5, "auc_null_high": None}


def test_two_that_are_compared(asked, attacked, here):
    for name in ("a.pth", "b.pth"):
        (here / name).touch()
    compared = ("leakage", "compare", "a.pth", "b.pth", "--model", "mlp")
    code, found = asked(*compared, "leakage=loss_threshold")
    assert code == 0
    assert [found[side]["name"] for side in "ab"] == ["a.pth", "b.pth"]
    assert found["unequal"] == ["seed", "leakage.loss_threshold"]
    assert asked(*compared)[1]["error"]["key"] == "leakage"


@pytest.mark.slow
def test_who_wants_to_hear_nothing_of_a_study_does_not(run, capfd):
    assert run_command(["leakage", "run", "leakage=loss_threshold", "quiet=true"]) == 0
    assert capfd.readouterr().out == ""
    assert run_command(["leakage", "run", "leakage=loss_threshold"]) == 0
    assert "Leakage, loss_threshold." in capfd.readouterr().out


@pytest.mark.slow
def test_detectors(asked, run):
    code, found = asked("detect", "fit", "run", "--out", "d.safetensors", "--scorer", "norm")
    assert (code, found["updates"], found["false_alarms"]) == (0, 9, None)
    code, scan = asked("detect", "scan", "run", "--detector", "d.safetensors")
    assert code == 0
    assert len(scan["scores"]) == 9
    assert scan["threshold"] == found["threshold"]
    assert scan["flagged"] == sum(one["score"] > scan["threshold"] for one in scan["scores"])


@pytest.mark.slow
def test_privacy_is_not_rounded(asked):
    released = ("--delta", "1e-5", "--sample-rate", "0.1", "--steps", "10")
    _, found = asked("privacy", *released, "--noise-multiplier", "1")
    assert found["epsilon"]["prv"] == pytest.approx(2.8648, abs=1e-4)
    assert found["noise"] == {}
    _, found = asked("privacy", *released, "--noise-multiplier", "0")
    assert found["epsilon"]["rdp"] is None  # infinite


@pytest.mark.slow
def test_configs_of_ones_own_are_known_to_every_command(asked, run, here):
    for group, ours in (("leakage", "loss_threshold"), ("backend", "in_process")):
        (here / "more" / group).mkdir(parents=True)
        text = (conf_folder() / group / f"{ours}.yaml").read_text()
        place = here / "more" / group / "mine.yaml"
        place.write_text(text.replace("\nloss_threshold:", "\nmine:"))
    for command in (["leakage", "run", "leakage=mine"], ["resume", "run", "backend=mine"]):
        assert asked(*command)[0] == 2
        code, found = asked(*command, "--config-dir", "more")
        assert code == 0, found
    assert asked("resume", "run", "--config-dir", "nowhere")[1]["error"]["key"] == "--config-dir"


def test_lists(asked):
    _, found = asked("list", "sampler")
    assert {"group", "choice", "description"} == set(found["choices"][0])
    assert {one["group"] for one in found["choices"]} == {"sampler"}
    _, found = asked("list", "--search", "blanchard")
    assert ("aggregator", "krum") in {(one["group"], one["choice"]) for one in found["choices"]}


def test_a_choice_of_a_group_that_cannot_be_asked(asked):
    _, found = asked("list", "model", "cnn")
    assert found["keys"][0]["name"]
    assert found["combinations"] == []


@pytest.mark.slow
def test_data(asked, here, monkeypatch):
    monkeypatch.setenv("FEDEXP_DATA_DIR", str(here / "data"))
    code, found = asked("data", "check", "digits", "mnist")
    assert code == 0
    assert [one["state"] for one in found["datasets"]] == ["ok", "missing"]
    next(make_images(here).glob("*/*.png")).write_bytes(b"\x89PNG")
    code, found = asked("data", "check", "images")
    assert code == 1
    assert "is no image" in found["own"][0]["faults"][0]


def test_the_store(asked):
    assert asked("store") == (
        0,
        {"schema": "store/1", "folder": "outputs/store", "entries": []},
    )


@pytest.mark.parametrize(
    ("arguments", "key", "value"),
    [
        (["run", "rounds=0"], "rounds", 0),
        (["run", "rounds=abc"], "rounds", "abc"),
        (["run", "aggregator=krm"], "aggregator", "krm"),
        (["run", "training.lr=-1"], "training.lr", -1),
        (["run", "model.hiden=[8]"], "model.hiden", "[8]"),
        (["report", "nowhere"], "path", "nowhere"),
        (["nonsense"], "command", "nonsense"),
        (["list", "--nonsense"], None, None),
        (["--help"], "--json", ""),
        (["schema", "rum"], "NAME", "rum"),
    ],
)
def test_refusals_are_documents_too(asked, here, capfd, arguments, key, value):
    code, found = asked(*arguments)
    assert code == 2
    assert found["error"]["reason"]
    assert (found["error"]["key"], found["error"]["value"]) == (key, value)
    assert list(here.iterdir()) == []


def test_what_breaks_is_a_document_and_its_traceback_is_not_hidden(here, capfd, monkeypatch):
    def broken(*arguments):
        raise ZeroDivisionError("by chance")

    monkeypatch.setattr("fedexp.reporting.report.report", broken)
    with pytest.raises(ZeroDivisionError):
        run_command(["report", "x", "--json"])
    found = json.loads(capfd.readouterr().out)
    check(found)
    assert found["error"]["reason"] == "by chance"


def test_an_interrupted_run_is_a_document(here, capfd, monkeypatch):
    def interrupted(exp, state):
        raise KeyboardInterrupt

    monkeypatch.setattr("fedexp.commands.execution.run_rounds", interrupted)
    assert run_command(["run", *SMALL, "--json", "hydra.run.dir=run"]) == 130
    assert json.loads(capfd.readouterr().out)["error"]["reason"] == "interrupted"


def _objects(node):
    if isinstance(node, dict):
        if node.get("type") == "object":
            yield node
        for inner in node.values():
            yield from _objects(inner)


@pytest.mark.parametrize("name", names())
def test_a_schema_knows_all_its_keys(name):
    found = schema(name)
    jsonschema.Draft202012Validator.check_schema(found)
    for node in _objects(found):
        assert "additionalProperties" in node
        assert set(node.get("required", ())) == set(node.get("properties", ()))
    document = {"schema": f"{name}/1", "of_nobody": 1}
    errors = [e.message for e in jsonschema.Draft202012Validator(found).iter_errors(document)]
    assert any("of_nobody" in message for message in errors)


def test_schemas_are_printed(asked, capfd):
    assert asked("schema")[1]["schemas"] == names()
    assert run_command(["schema", "sweep"]) == 0
    printed = json.loads(capfd.readouterr().out)
    assert printed["$defs"]["run"]["$id"] == "run.json"
    assert schema("sweep/1") == printed, "as a document names it"


def test_names_of_schemas_stand_apart_from_their_titles(capfd):
    assert run_command(["schema"]) == 0
    assert [line.split()[0] for line in capfd.readouterr().out.splitlines()] == names()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("run/2", "did you mean run/1?"),
        ("rum/1", "did you mean run?"),
        ("run/", "did you mean run/1?"),
    ],
)
def test_a_schema_that_there_is_not(name, words):
    with pytest.raises(InputError, match=re.escape(f"NAME={name}: {words}")):
        schema(name)
