"""`fedexp list`, from folders made for the purpose."""

import pytest

from fedexp.config.catalogue import description, groups, listing
from fedexp.config.folders import conf_folder
from fedexp.core.checks import InputError


@pytest.fixture
def folder(tmp_path):
    def write(path, text):
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")

    write("config.yaml", "# The defaults\n")
    write("model/mlp.yaml", "# A perceptron\n# and more about it\n_target_: x\n")
    write("model/cnn.yaml", "# Convolutions, 5×5\n_target_: x\n")
    write("training/sgd.yaml", "# Local SGD\n")
    write("training/schedule/cosine.yaml", "# Half a cosine\n")
    write("experiment/quick.yaml", "# @package _global_\n# In seconds\nrounds: 1\n")
    write("model/silent.yaml", "_target_: x\n# too late\n")
    write("model/notes.txt", "# no choice\n")
    write("paths/default.yaml", "# Where data lies\n")
    write("local/default.yaml", "# Mine\n")
    write("hydra/launcher/x.yaml", "# Hydra's\n")
    return tmp_path


def test_groups_and_choices_with_their_first_line(folder):
    assert groups([folder]) == {
        "experiment": {"quick": "In seconds"},
        "model": {"cnn": "Convolutions, 5×5", "mlp": "A perceptron", "silent": ""},
        "training": {"sgd": "Local SGD"},
        "training/schedule": {"cosine": "Half a cosine"},
    }


def test_the_first_folder_wins(folder, tmp_path_factory):
    mine = tmp_path_factory.mktemp("mine")
    (mine / "model").mkdir()
    (mine / "model" / "mlp.yaml").write_text("# My own\n")
    (mine / "model" / "tree.yaml").write_text("# A tree\n")
    models = groups([mine, folder])["model"]
    assert models["mlp"] == "My own"
    assert models["tree"] == "A tree"
    assert models["cnn"] == "Convolutions, 5×5"
    assert groups([folder, mine])["model"]["mlp"] == "A perceptron"


def test_a_description_skips_what_is_meant_for_hydra(folder):
    assert description(folder / "experiment" / "quick.yaml") == "In seconds"
    assert description(folder / "model" / "silent.yaml") == ""


def test_a_listing_of_everything(folder):
    text = listing([folder], None)
    assert "training/schedule\n  cosine  Half a cosine\n" in text
    assert "  mlp     A perceptron\n" in text
    assert "Mine" not in text
    assert text.splitlines()[0] == "experiment"


def test_a_listing_of_one_group(folder):
    text = listing([folder], "training/schedule")
    assert text.splitlines()[:2] == ["training/schedule", "  cosine  Half a cosine"]
    assert "perceptron" not in text


def test_an_unknown_group_is_refused_with_the_nearest(folder):
    with pytest.raises(InputError, match=r"GROUP=modle: did you mean model.*Groups: experiment, "):
        listing([folder], "modle")


def test_ours_can_all_be_listed():
    text = listing([conf_folder()], None)
    assert all(len(line) <= 120 for line in text.splitlines())
    for choice in ("dirichlet", "trimmed_mean", "pneumoniamnist", "hospital_attack", "cosine"):
        assert f"  {choice} " in text
