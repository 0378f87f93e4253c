"""`dataset.validation_size=0`: all training examples are trained on, and nothing chooses."""

from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf

from fedexp.attacks.none import NoAttack
from fedexp.commands.run import _follow_the_objective
from fedexp.commands.verdicts import figures_of_sites
from fedexp.config.build import build
from fedexp.config.unvalidated import without_validation
from fedexp.core.checks import InputError
from fedexp.core.types import Dataset, Split
from fedexp.data.check import checked
from fedexp.data.digits import Digits
from tests.support.composing import config_for

NONE_LEFT = ("dataset.validation_size=0", "rounds=1")


def test_the_training_part_is_all_that_the_test_part_leaves():
    whole = Digits("digits", (1, 8, 8), 10, validation_size=0, test_size=360, split_seed=0)(None)
    usual = Digits("digits", (1, 8, 8), 10, validation_size=180, test_size=360, split_seed=0)(None)
    assert (len(whole.train), len(whole.validation), len(whole.test)) == (1437, 0, 360)
    assert torch.equal(whole.test.x, usual.test.x)
    both = torch.cat([usual.train.x, usual.validation.x]).flatten(1)
    assert torch.equal(
        torch.unique(whole.train.x.flatten(1), dim=0, return_counts=True)[1],
        torch.unique(both, dim=0, return_counts=True)[1],
    )


def test_a_run_measures_on_test_alone_and_says_so():
    built = build(config_for(*NONE_LEFT))
    built.experiment.backend.close()
    assert set(built.experiment.evaluator.splits) == {"test"}
    assert any("no round is called the best" in remark for remark in built.remarks)


def test_figures_of_sites_are_not_made():
    built = build(config_for(*NONE_LEFT, "partition=feature"))
    built.experiment.backend.close()
    assert figures_of_sites(built, [], 0) == {}


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("early_stopping.patience=3", r"early_stopping\.patience=3: ends a run by its validation"),
        ("attack=worst_of", "attack=.*WorstOf: tries rows on validation"),
        ("verdict=hospital", "verdict=.*: chooses thresholds on validation"),
        ("dataset.validation_size=-1", r"dataset\.validation_size=-1: must be a whole number, 0"),
        ("dataset.validation_size=5", r"dataset\.validation_size=5: must be 0 or lie between 10"),
    ],
)
def test_what_chooses_by_validation_is_refused(override, said):
    with pytest.raises(InputError, match=said):
        build(config_for(*NONE_LEFT, override))


def test_who_may_end_a_run_is_asked_wherever_it_stands():
    never, may = SimpleNamespace(ends_no_run=True), SimpleNamespace()
    config = {"early_stopping": {}, "verdict": {}, "objective": "test.accuracy"}
    nothing = Split(torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64))
    dataset = Dataset("none left", nothing, nothing, nothing, ("a", "b"))
    assert without_validation(dataset, config, (never, never), NoAttack())
    with pytest.raises(InputError, match="ends a run by its validation metric"):
        without_validation(dataset, config, (never, may), NoAttack())


def test_a_part_that_nobody_asked_to_be_empty_is_refused_as_ever():
    whole = Digits("digits", (1, 8, 8), 10, validation_size=0, test_size=360, split_seed=0)(None)
    with pytest.raises(InputError, match="the validation part is empty"):
        checked(whole, "digits", None, None)


def test_a_sweeper_that_optimises_has_no_figure_to_go_by():
    sweeper = {"direction": "maximize"}
    said = {"hydra": {"sweeper": sweeper}, "dataset": {"validation_size": 0}}
    with pytest.raises(InputError, match="leaves a sweeper that optimises no figure"):
        _follow_the_objective(OmegaConf.create(said))
