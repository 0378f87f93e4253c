"""What `fedexp list GROUP CHOICE` and the documentation's reference say of every choice."""

import pytest

from fedexp.commands.cli import run_command
from fedexp.config.catalogue import groups
from fedexp.config.explanation import Key, as_text, explain, found_by
from fedexp.config.folders import conf_folder
from fedexp.core.checks import InputError

FOLDERS = [conf_folder()]
NO_PARTS = {"experiment", "scenario", "debug"}  # overrides of what is explained elsewhere


@pytest.mark.parametrize("group", sorted(set(groups(FOLDERS)) - NO_PARTS))
def test_every_key_of_every_choice_is_explained(group):
    silent = []
    for choice in groups(FOLDERS)[group]:
        explained = explain(FOLDERS, group, choice)
        assert explained.description
        for key in explained.keys:
            internal = key.name.rpartition(".")[2].startswith("_")
            if not (key.comment or key.meaning or internal):
                silent.append(f"{choice}: {key.name}")
        assert as_text(explained).startswith(f"{group}={choice}: ")
    assert not silent


def test_a_key_says_what_the_yaml_and_the_docstring_say():
    krum = explain(FOLDERS, "aggregator", "krum")
    assert krum.target == "fedexp.aggregation.krum.Krum"
    assert "Byzantine" in krum.source
    assert krum.keys[1] == Key(
        "selected",
        "1",
        "m: rows to average",
        "m, how many rows to average; 1 is Krum, None takes n - f (Multi-Krum).",
    )


@pytest.mark.parametrize("study", sorted(set(groups(FOLDERS)["leakage"]) - {"none"}))
def test_a_study_is_explained_although_it_stands_under_its_own_name(study):
    explained = explain(FOLDERS, "leakage", study)
    assert explained.target.startswith("fedexp.leakage.")
    assert explained.about
    assert "et al" in explained.source or "Source" in explained.source


def test_a_study_says_what_its_attack_is():
    geiping = explain(FOLDERS, "leakage", "geiping")
    assert "Inverting Gradients" in geiping.source
    assert all(key.meaning for key in geiping.keys if key.name == "geiping.attack.iterations")


def test_comments_that_go_on_below_and_nested_keys(tmp_path):
    (tmp_path / "attack").mkdir()
    (tmp_path / "attack/own.yaml").write_text(
        "# Mine\n# See my paper.\n_target_: mine.Own\nsize:      # not by itself\n"
        "  width: 3       # metres,\n                 # not feet\nplain: 'a # b'\n"
    )
    own = explain([tmp_path], "attack", "own")
    assert own.notes == "See my paper."
    assert own.about == ""  # code of somebody else's is not imported for a description
    assert own.keys == (
        Key("size", "", "not by itself", ""),
        Key("size.width", "3", "metres, not feet", ""),
        Key("plain", "'a # b'", "", ""),
    )


def test_what_is_not_there_is_refused_with_what_is():
    with pytest.raises(InputError, match="GROUP=aggregators: did you mean aggregator"):
        explain(FOLDERS, "aggregators", "krum")
    with pytest.raises(InputError, match="CHOICE=krumm: did you mean krum"):
        explain(FOLDERS, "aggregator", "krumm")


def test_a_word_is_found_in_names_descriptions_and_keys():
    found = found_by(FOLDERS, "Proximal")
    assert [(group, choice) for group, choice, _ in found] == [("training", "sgd")]


def test_on_the_command_line(capfd, monkeypatch):
    nobody = "fedexp.commands.combinations.combinations"  # it tries them all, for seconds
    monkeypatch.setattr(nobody, lambda *_: ())
    assert run_command(["list", "attack", "alie"]) == 0
    assert "Baruch" in capfd.readouterr().out
    assert run_command(["list", "--search", "byzantinne"]) == 2
    assert "--search=byzantinne" in capfd.readouterr().err
