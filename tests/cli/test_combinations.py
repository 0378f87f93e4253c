"""`fedexp list GROUP CHOICE`: what goes with it is what a run would take."""

import re

import pytest
from omegaconf import open_dict

from fedexp.commands.cli import run_command
from fedexp.commands.combinations import Pair, _tried, as_text
from fedexp.commands.in_python import hydra_config
from fedexp.config.folders import conf_folder

pytestmark = pytest.mark.usefixtures("without_pictures")


@pytest.fixture(scope="module")
def beside_krum():
    """Tries one choice after the other beside `aggregator=krum`, in one config."""
    config = hydra_config(["aggregator=krum"])
    config.n_clients, config.cohort_size = 10, 10

    def beside(group, choice):
        with open_dict(config):
            return _tried(config, [conf_folder()], group, choice)

    return beside


def test_beside_krum(here, beside_krum):
    sums = ("channel", "secure_aggregation", "one sum and no individual update")
    alone = ("aggregator", "krum", "")
    for group, choice, words in (
        alone,
        ("privacy", "client_dp", "declares no sensitivity"),
        sums,
        ("pre_aggregation", "nnm", ""),
        ("aggregator", "mean", ""),
        ("training", "sgd", ""),  # whose schedule is a choice of its own
        ("attack", "alie", ""),
        sums,
        alone,  # and nothing stays from the ones before
    ):
        pair = beside_krum(group, choice)
        assert (pair.group, pair.choice) == (group, choice)
        assert (pair.refused is None) == (not words), pair
        assert words in (pair.refused or "")


@pytest.mark.slow
def test_it_is_what_a_run_says(here, capfd):
    for beside, code in (("channel=secure_aggregation", 2), ("channel=plain", 0)):
        run = ["run", "aggregator=median", beside, "rounds=1", "training.epochs=1", "plots=false"]
        assert run_command([*run, "quiet=true", f"hydra.run.dir={code}"]) == code
    capfd.readouterr()
    assert run_command(["list", "aggregator", "median"]) == 0
    said = " ".join(capfd.readouterr().out.split())
    goes_with, _, refused = said.partition("Refused:")
    assert re.search(r" channel (?!all)[\w, ]*\bplain\b", goes_with), goes_with
    assert (
        "secure_aggregation" not in goes_with.partition(" channel ")[2].partition(" detector ")[0]
    )
    alike = re.search(r"(channel=\w+(?:, channel=\w+)*) aggregator=", refused)
    assert alike, refused
    sums = {"channel=block_means", "channel=secure_aggregation", "channel=secure_skellam"}
    assert sums <= set(alike[1].split(", "))


def test_alike_reasons_are_told_once():
    pairs = [
        Pair("aggregator", "krum", None),
        Pair("channel", "plain", None),
        Pair("channel", "sums", "aggregator=Krum: needs rows"),
        Pair("privacy", "none", None),
        Pair("sampler", "one", "sampler=One: is no sampler"),
        Pair("sampler", "two", "sampler=Two: is no sampler"),
    ]
    assert as_text(pairs).splitlines() == [
        "Goes with (each tried beside it, everything else by default):",
        "  channel           plain",
        "  privacy           all 1",
        "  sampler           none",
        "Refused:",
        "  channel=sums",
        "      aggregator=Krum: needs rows",
        "  sampler=one, sampler=two",
        "      is no sampler",
    ]
    assert as_text([]) == ""


def test_what_mends_a_choice_that_is_refused_alone():
    alone = "sampler=X: draws too few"
    pairs = [
        Pair("sampler", "x", alone),
        Pair("channel", "plain", alone),
        Pair("setting", "y", None),
    ]
    assert as_text(pairs).splitlines() == [
        "Not with the defaults alone: sampler=X: draws too few",
        "What mends it:",
        "  channel           none",
        "  setting           all 1",
    ]
