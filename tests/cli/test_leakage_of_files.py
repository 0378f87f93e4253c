"""`fedexp leakage FILE.pth` and `compare`: models that somebody else trained."""

import json
import os
import re

import pytest
import torch

from fedexp.commands.cli import run_command
from fedexp.config.build import build
from tests.support.composing import config_for
from tests.support.studied_runs import finished_run

ASKED = ("--model", "mlp", "dataset=digits", "leakage=loss_threshold")
QUICK = (*ASKED, "leakage.loss_threshold.permutations=40")
MEMBERS = ("--members", "train")


class Hostile:
    def __reduce__(self):
        return os.system, ("touch executed",)


@pytest.fixture(scope="module")
def trained():
    """The state dict of a model that knows its training part by heart."""
    built = build(config_for("dataset=digits", "partition=iid"))
    train, model = built.dataset.as_floats().train, built.model
    x = built.normalisation.x(train.x)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(30):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), train.y).backward()
        optimizer.step()
    return model.state_dict()


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def parallel(weights):
    return {f"module.{name}": tensor for name, tensor in weights.items()}


def attack(*command):
    assert run_command(["leakage", *map(str, command)]) == 0
    (found,) = os.listdir("outputs/leakage")
    return found


def complaint(capsys, *command):
    assert run_command(["leakage", *map(str, command)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert not os.path.exists("outputs")
    return line


WRITTEN = {
    "plain": lambda weights: weights,
    "parallel": parallel,
    "wrapped": lambda weights: {"state_dict": weights, "epoch": 3},
    "both": lambda weights: {"model": parallel(weights), "optimizer": {"state": {}}},
}


@pytest.mark.slow
@pytest.mark.parametrize("write", WRITTEN.values(), ids=WRITTEN)
def test_however_it_was_saved_it_is_the_same_model(here, trained, write, capsys):
    torch.save(write(trained), "model.pth")
    folder = attack("model.pth", *QUICK, *MEMBERS)
    printed = capsys.readouterr().out
    assert "Assumed: members are the dataset's training part, as it was said." in printed
    with open(f"outputs/leakage/{folder}/leakage/loss_threshold/findings.json") as file:
        headline = json.load(file)["headline"]
    assert headline["train_accuracy"] > 0.99  # the scale is the one that it was trained with
    assert headline["n_members"] == headline["n_non_members"] == 360
    with open(f"outputs/leakage/{folder}/model.json") as file:
        assert json.load(file)["members"] == "train"
    run_command(["leakage", "model.pth", *QUICK, *MEMBERS])
    assert "its findings are there already" in capsys.readouterr().out


@pytest.mark.slow
def test_members_may_be_rows_and_the_rest_are_held_out(here, trained):
    torch.save(trained, "model.pth")
    (here / "rows.txt").write_text("\n".join(map(str, range(100))))
    folder = attack("model.pth", *QUICK, "--members", "rows.txt", "--scale", "none")
    with open(f"outputs/leakage/{folder}/leakage/loss_threshold/findings.json") as file:
        assert json.load(file)["headline"]["n_members"] == 100


def changed(name, tensor):
    return lambda weights: {**weights, name: tensor}


def last(weights):
    return list(weights)[-2]


REFUSED = {
    "a hostile pickle": (
        lambda weights: {"weights": Hostile()},
        "MODEL_FILE=model.pth: holds something else than tensors (posix.system)",
    ),
    "a tensor too many": (changed("extra", torch.zeros(3)), "have extra, which the model has not"),
    "another shape": (
        lambda weights: {**weights, next(iter(weights)): torch.zeros(3, 3)},
        "is [3, 3], not [200, 64]",
    ),
    "a head for other classes": (
        lambda weights: {**weights, last(weights): torch.zeros(5, 200)},
        "its weights are those of another model: 5.weight is [5, 200], not [10, 200]",
    ),
    "no state dict": (lambda weights: [1, 2], "holds a list, not a state dict"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("write", "words"), REFUSED.values(), ids=REFUSED)
def test_a_file_that_cannot_be_used_is_refused_by_name(here, trained, capsys, write, words):
    torch.save(write(trained), "model.pth")
    line = complaint(capsys, "model.pth", *QUICK, *MEMBERS)
    assert line.startswith("fedexp: MODEL_FILE=model.pth: ")
    assert words in line
    assert not (here / "executed").exists()


MISSING = {
    "members": (QUICK, "--members=: say who was trained on"),
    "a model": (QUICK[2:], "--model=: say which model the weights are of"),
    "a study": (QUICK[:3], "choose what to do"),
    "a run": (("--model", "mlp", "leakage=geiping"), "leakage=geiping: needs a run"),
    "a run to set": ((*QUICK, *MEMBERS, "rounds=3"), "override=rounds=3: there is no run to set"),
    "a scale": ((*QUICK, *MEMBERS, "--scale", "1,0"), "--scale=1,0: must be fedexp, none, or"),
    "a finite mean": (
        (*QUICK, *MEMBERS, "--scale", "nan,1"),
        "--scale=nan,1: must be fedexp, none",
    ),
    "a file": ((*QUICK, *MEMBERS), "MODEL_FILE=model.pth: "),
}


@pytest.mark.parametrize(("said", "words"), MISSING.values(), ids=MISSING)
def test_what_has_to_be_said_is_asked_for(here, capsys, said, words):
    if words != "MODEL_FILE=model.pth: ":
        torch.save({"weight": torch.zeros(2)}, "model.pth")
    assert words in complaint(capsys, "model.pth", *said)


@pytest.mark.slow
def test_rows_that_are_none_are_refused(here, trained, capsys):
    torch.save(trained, "model.pth")
    (here / "rows.txt").write_text("0\n5000\n")
    line = complaint(capsys, "model.pth", *QUICK, "--members", "rows.txt")
    assert "--members=rows.txt: must hold row numbers from 0 to" in line
    line = complaint(capsys, "model.pth", *QUICK, "--members", "nowhere.txt")
    assert '--members=nowhere.txt: must be "train", or a file' in line


@pytest.mark.slow
def test_its_classes_are_inverted_without_a_word_on_members(here, trained, capsys):
    torch.save(trained, "model.pth")
    short = ("leakage.model_inversion.steps=20", "leakage.model_inversion.restarts=1")
    attack("model.pth", "--model", "mlp", "dataset=digits", "leakage=model_inversion", *short)
    printed = capsys.readouterr().out
    assert "Leakage, model_inversion. ModelInversion, round" in printed
    assert "Assumed: nobody said who was trained on" in printed


@pytest.mark.slow
def test_two_side_by_side_with_what_was_not_equal(here, trained, capsys):
    torch.save(trained, "a.pth")
    torch.save(parallel(trained), "b.pth")
    assert run_command(["leakage", "compare", "a.pth", "b.pth", *QUICK, *MEMBERS]) == 0
    printed = capsys.readouterr().out
    assert "All conditions that are known were equal." in printed
    auc = next(line for line in printed.splitlines() if " AUC " in line)
    first, second = re.findall(r"0\.\d+ \[0\.\d+, 0\.\d+\]", auc)
    assert first == second
    victim = finished_run(here / "victim")
    of_the_file = "model.hidden=[200,200]"
    said = ["a.pth", str(victim), *QUICK, *MEMBERS, of_the_file]
    assert run_command(["leakage", "compare", *said]) == 0
    printed = capsys.readouterr().out
    assert "Not equal, so that a difference may come from these:" in printed
    assert "rounds: not known of a file against" in printed


def test_two_runs_are_unequal_in_any_setting_that_decides_them(here, capsys):
    runs = [
        str(finished_run(here / name, f"training.lr={lr}")) for name, lr in (("a", 0.1), ("b", 0.2))
    ]
    asked = ("leakage=loss_threshold", "leakage.loss_threshold.permutations=40")
    assert run_command(["leakage", "compare", *runs, *asked]) == 0
    printed = capsys.readouterr().out
    assert "Not equal, so that a difference may come from these:" in printed
    assert "training: LocalSGD (lr 0.1) against LocalSGD (lr 0.2)" in printed
    assert "privacy:" not in printed


@pytest.mark.slow
def test_findings_of_another_model_or_of_other_rows_are_not_taken_for_its_own(
    here, trained, capsys
):
    torch.save(trained, "a.pth")
    torch.save({name: torch.zeros_like(tensor) for name, tensor in trained.items()}, "b.pth")
    rows = here / "rows.txt"
    rows.write_text("\n".join(map(str, range(100))))
    members = ("--members", "rows.txt")
    assert run_command(["leakage", "a.pth", *QUICK, *members, "--out", "found"]) == 0
    line = complaint(capsys, "b.pth", *QUICK, *members, "--out", "found")
    assert "--out=found: holds findings of other conditions (sha256)" in line
    before = attack("a.pth", *QUICK, *members)
    rows.write_text("\n".join(map(str, range(50))))
    assert run_command(["leakage", "a.pth", *QUICK, *members, "--out", "found"]) == 2
    assert "(examples): name another folder" in capsys.readouterr().err
    assert run_command(["leakage", "a.pth", *QUICK, *members]) == 0
    assert len(os.listdir("outputs/leakage")) == 2
    assert before in os.listdir("outputs/leakage")


@pytest.mark.slow
def test_a_runs_folder_takes_no_findings_of_a_file(here, trained, capsys):
    torch.save(trained, "model.pth")
    (here / "run").mkdir()
    (here / "run" / "config.yaml").write_text("seed: 0\n")
    line = complaint(capsys, "model.pth", *QUICK, *MEMBERS, "--out", "run")
    assert "--out=run: is a run's folder: findings in it are of that run" in line
    assert sorted(path.name for path in (here / "run").iterdir()) == ["config.yaml"]


OF_THE_OTHER = {
    "members": ("run --members train", "--members=train: is of a file of weights, and run is"),
    "scale": ("run --scale none", "--scale=none: is of a file of weights"),
    "out": ("run --out found", "--out=found: is of a file of weights"),
    "model": ("run --model mlp", "--model=mlp: is of a file of weights"),
    "name": ("model.pth --model mlp --as x", "--as=x: is of a run, and model.pth is no run's"),
    "two runs": ("compare run run --scale none", "--scale=none: is of a file of weights, and run"),
    "two places": ("compare model.pth run --out found", "unrecognized arguments: --out"),
}


@pytest.mark.parametrize(("said", "words"), OF_THE_OTHER.values(), ids=OF_THE_OTHER)
def test_an_option_without_effect_is_refused(here, capsys, said, words):
    (here / "run").mkdir()
    (here / "model.pth").write_bytes(b"")
    assert words in complaint(capsys, *said.split(), "leakage=loss_threshold")
