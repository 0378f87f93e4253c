"""Where a model starts from: files that fit, heads that do not, bodies that stay."""

import hashlib
import json

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from fedexp.config.build import build
from fedexp.config.lineage import Ancestor, lineage_of
from fedexp.config.origin import origin_of
from fedexp.config.weights import Start, head_of, starting_point
from fedexp.core.checks import InputError
from fedexp.core.flat import state_dict_of, vector_of
from fedexp.run_folder.origin import refuse_other_origin, write_origin
from tests.support.composing import config_for
from tests.support.refusing import refusal

SMALL = ("model=mlp", "model.hidden=[5]", "plots=false", "backend=in_process")


def mlp(inputs=64, classes=10, hidden=5, seed=3):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, classes)
    )


@pytest.fixture
def file(tmp_path):
    """Of weights that fit the small model on digits."""
    path = tmp_path / "start.safetensors"
    save_file(mlp().state_dict(), path)
    return path


def built_from(path, *overrides):
    built = build(config_for(*SMALL, f"model.weights={path}", *overrides))
    built.experiment.backend.close()
    return built


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
def test_a_model_starts_from_the_numbers_of_a_file(tmp_path, suffix):
    model, path = mlp(), tmp_path / f"start{suffix}"
    if suffix == ".safetensors":
        save_file(model.state_dict(), path)
    else:
        torch.save(
            {"state_dict": model.state_dict()} if suffix == ".pt" else model.state_dict(), path
        )
    built = built_from(path)
    assert torch.equal(vector_of(built.model), vector_of(model))
    assert built.remarks == ()
    assert built.lineage.start.digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_without_a_file_nothing_changes():
    config = config_for(*SMALL)
    assert (config["model"]["weights"], config["model"]["frozen"]) == (None, "none")
    fresh = build(config)
    del config["model"]["weights"], config["model"]["frozen"]  # as of a run of the time before
    before = build(config)
    assert torch.equal(vector_of(fresh.model), vector_of(before.model))
    assert fresh.lineage.start == Start()
    assert fresh.lineage.document == {}


def test_a_head_of_another_shape_is_drawn_anew_and_that_is_said(tmp_path):
    model, path = mlp(classes=3), tmp_path / "three.safetensors"
    save_file(model.state_dict(), path)
    built, fresh = built_from(path), build(config_for(*SMALL))
    got, drawn = built.model.state_dict(), fresh.model.state_dict()
    assert torch.equal(got["1.weight"], model.state_dict()["1.weight"])
    assert torch.equal(got["3.weight"], drawn["3.weight"])
    (said,) = built.remarks
    assert said == (
        "model.weights: the head was left as it is drawn anew: 3.weight is [3, 5], not [10, 5]; "
        "3.bias is [3], not [10]"
    )


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (mlp(hidden=6), "do not fit: 1.weight is [6, 64], not [5, 64]"),
        (nn.Linear(64, 10), "they lack 1.weight, 1.bias, 3.weight and 1 more and have"),
        (
            nn.Sequential(*mlp(), nn.Linear(10, 10)),
            "have 4.bias, 4.weight, which the model has not",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_name(tmp_path, model, said):
    path = tmp_path / "other.safetensors"
    save_file(model.state_dict(), path)
    line = refusal(config_for(*SMALL, f"model.weights={path}"))
    assert line.startswith(f"model.weights={path}: ")
    assert said in line


def test_files_that_hold_something_else_are_refused(tmp_path):
    class Trap:
        def __reduce__(self):
            import os

            return os.mkdir, (str(tmp_path / "sprung"),)

    torch.save({"0.weight": Trap()}, tmp_path / "trap.pth")
    save_file({"x": torch.full((2,), torch.nan)}, tmp_path / "nan.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10")
    (tmp_path / "words.txt").write_text("words")
    of_clients = {f"client{k}.{n}": t for k in (0, 1) for n, t in mlp().state_dict().items()}
    save_file(of_clients, tmp_path / "clients.safetensors")
    for name, said in (
        ("trap.pth", "could run code, and was not loaded"),
        ("nan.safetensors", "holds NaN or infinite numbers"),
        ("cut.safetensors", "is broken or no such file"),
        ("words.txt", "a run's folder, or a file .safetensors, .pth, .pt"),
        ("missing.pth", "cannot be opened: No such file or directory"),
        ("clients.safetensors", "are a model for every client"),
    ):
        assert said in refusal(config_for(*SMALL, f"model.weights={tmp_path / name}")), name
    assert not (tmp_path / "sprung").exists()
    said = refusal(config_for(*SMALL, f"model.weights={tmp_path}"))
    assert "model.safetensors in it cannot be opened" in said


def test_of_a_frozen_body_only_the_head_is_trained_and_sent(file):
    built = built_from(file, "model.frozen=body", "rounds=1")
    assert len(vector_of(built.model)) == 5 * 10 + 10
    head = torch.arange(60.0)
    whole = state_dict_of(built.model, head)
    assert torch.equal(whole["1.weight"], mlp().state_dict()["1.weight"])
    assert torch.equal(whole["3.weight"].reshape(-1), head[:50])
    assert {n for n, p in built.model.named_parameters() if p.requires_grad} == {
        "3.weight",
        "3.bias",
    }


def test_what_cannot_be_frozen_is_refused():
    assert "the model is one layer" in refusal(config_for("model=logistic", "model.frozen=body"))
    assert "Allowed: none, body" in refusal(config_for("model.frozen=head"))
    assert "Allowed: none, body" in refusal(config_for("model.frozen=0"))


def test_torchvisions_state_dicts_fit_torchvisions_models(tmp_path):
    torch.manual_seed(0)
    theirs, path = torchvision.models.squeezenet1_1(num_classes=7), tmp_path / "squeeze.pth"
    torch.save(theirs.state_dict(), path)
    torch.manual_seed(1)
    ours = torchvision.models.squeezenet1_1(num_classes=2)
    start = starting_point({"model": {"weights": str(path), "frozen": "body"}})
    (said,) = start.prepare(ours)
    assert "classifier.1.weight is [7, 512, 1, 1], not [2, 512, 1, 1]" in said
    assert torch.equal(ours.features[0].weight, theirs.features[0].weight)
    assert head_of(ours)[0] == "classifier.1"
    assert len(vector_of(ours)) == 2 * 512 + 2


def test_another_file_under_the_same_name_is_noticed(file, tmp_path):
    config = config_for(*SMALL, f"model.weights={file}")
    write_origin(tmp_path, origin_of(config, build(config)))
    refuse_other_origin(tmp_path, origin_of(config, build(config)))
    save_file(mlp(seed=4).state_dict(), file)
    with pytest.raises(InputError, match="another file of initial weights"):
        refuse_other_origin(tmp_path, origin_of(config, build(config)))


# What a promise about privacy can cover

DP = ("privacy=dp_sgd", "privacy.noise_multiplier=2", "privacy.target_epsilon=null", "rounds=1")


def left_out(built):
    account = built.experiment.account
    return account.statement(account.init())["not_covered"]


def test_a_promise_does_not_cover_what_a_file_was_trained_on(file):
    built = built_from(file, *DP)
    assert left_out(built)[-1] == (
        "what the model it starts from learned of the data of start.safetensors"
    )
    assert any("does not cover" in said for said in built.remarks)
    assert not any("starts from" in said for said in left_out(build(config_for(*SMALL, *DP))))


@pytest.fixture
def run(tmp_path, file):
    """Makes a folder like that of a run, with the weights that fit and a record to choose."""

    def make(dataset="digits", data="d" * 64, privacy=None, before=None, seed=7):
        folder = tmp_path / "run"
        folder.mkdir()
        (folder / "config.yaml").write_text(
            f"dataset: {{name: {dataset}}}\nrounds: 3\nseed: {seed}\n"
        )
        (folder / "origin.json").write_text(json.dumps({"data": data}))
        summary = {"status": "complete", "rounds": 3}
        if privacy:
            words = ("mechanism", "unit", "adjacency", "accountant", "sampling", "noise_added_by")
            summary["privacy"] = {**dict.fromkeys((*words, "noise_source"), "x"), **privacy}
        if before is not None:
            summary["from"] = {"trained_on": before}
        (folder / "summary.json").write_text(json.dumps(summary))
        (folder / "model.safetensors").write_bytes(file.read_bytes())
        return folder

    return make


PRIVATE = {"epsilon": 3.0, "delta": 1e-5, "unit": "one example of one client"}
PUBLIC = {"dataset": "digits", "data": "e" * 64, "epsilon": None}


def promise_from(folder, key="from"):
    config = config_for(*SMALL, *DP, f"{key}={folder}")
    return build(config)


@pytest.mark.parametrize("key", ["from", "model.weights"])
def test_no_epsilon_is_promised_of_data_that_the_start_was_trained_on_openly(run, key):
    line = refusal(config_for(*SMALL, *DP, f"{key}={run()}"))
    assert line.startswith(f"{key}=")
    assert "was trained on digits without a promise" in line


def test_a_split_drawn_otherwise_are_the_same_patients_and_so_is_what_is_not_known(run):
    assert "without a promise" in refusal(config_for(*SMALL, *DP, f"from={run(data='')}"))


def test_the_ancestors_of_a_run_count_too(run):
    folder = run(dataset="mnist", before=[PUBLIC])
    assert "without a promise" in refusal(config_for(*SMALL, *DP, f"from={folder}"))


def test_what_an_earlier_promise_cost_is_stated_and_not_continued(run):
    built = promise_from(run(privacy=PRIVATE))
    said = left_out(built)[-1]
    assert "epsilon 3 at delta 1e-05, for one example of one client" in said
    assert "the ledger of that run is not continued" in said


def test_the_noise_of_an_earlier_run_is_not_drawn_again(run):
    folder = run(privacy=PRIVATE, seed=0)
    line = refusal(config_for(*SMALL, *DP, f"from={folder}"))
    assert line.startswith("seed=0: would draw the noise of the run that it starts from once more")


def test_other_data_are_stated(run):
    said = left_out(promise_from(run(dataset="mnist")))
    assert said[-1] == "what the model it starts from learned of mnist"


def test_the_record_names_the_origin_for_those_who_come_after(run):
    folder = run(dataset="mnist", before=[PUBLIC])
    lineage = lineage_of(starting_point({"model": {}, "from": str(folder)}))
    assert lineage.document["run"] == str(folder)
    assert lineage.document["model_sha256"] == lineage.start.digest
    assert lineage.document["rounds"] == 3
    assert [known["dataset"] for known in lineage.document["trained_on"]] == ["mnist", "digits"]
    assert lineage.ancestors[1] == Ancestor("digits", "e" * 64, None, None, "")


def test_without_a_promise_any_start_is_taken(run):
    folder = run()
    assert build(config_for(*SMALL, f"from={folder}")).experiment.account.init() == {}
    twice = refusal(config_for(*SMALL, f"from={folder}", f"model.weights={folder}"))
    assert "is given twice" in twice
