"""The loss threshold on digits that a small model has learned by heart."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F

from fedexp.core.checks import InputError
from fedexp.core.flat import state_dict_of
from fedexp.core.rng import generator
from fedexp.leakage.membership.loss_threshold import LossThreshold
from tests.support.composing import CONF
from tests.support.membership_victims import digits, victim_of


@pytest.fixture(scope="module")
def victim(tmp_path_factory):
    return victim_of(
        tmp_path_factory.mktemp("run"),
        *digits(100, 400),
        "n_clients=2",
        "rounds=6",
        "training.epochs=5",
        "model.hidden=[64]",
    )


def found(victim, rounds=("last",), most=None, permutations=100):
    shares = []
    findings = LossThreshold(list(rounds), most, permutations)(victim, shares.append)
    assert shares[-1] == 1.0
    assert shares == sorted(shares)
    return findings


def test_the_auc_is_that_of_the_cross_entropy(victim):
    findings = found(victim, ["initial", "last"])
    victim.model.load_state_dict(state_dict_of(victim.model, victim.models[6]))
    members = victim.pixels.train
    losses = []
    for part in (members, victim.reserve):
        logits = victim.model.eval()(victim.normalisation.x(part.x)).detach().double()
        losses.append(F.cross_entropy(logits, part.y, reduction="none"))
    # All reserve here, a draw of it in the study: the study's own scores are among them.
    scores = findings.arrays["scores_non_members"]
    assert len(scores) == 100
    np.testing.assert_allclose(np.sort(findings.arrays["scores_members"]), np.sort(-losses[0]))
    assert all(np.isclose(-losses[1].numpy(), s, rtol=1e-4).any() for s in scores)
    truth = np.repeat([1, 0], 100)
    joined = np.concatenate([findings.arrays["scores_members"], scores])
    assert findings.headline["auc"] == pytest.approx(roc_auc_score(truth, joined))


def test_an_overfitted_model_leaks_and_an_untrained_one_does_not(victim):
    findings = found(victim, ["initial", "last"])
    rows = {(f.subject, f.round, f.metric): f.value for f in findings.figures}
    at_start = [rows["loss threshold", 0, f"auc{end}"] for end in ("_null_low", "", "_null_high")]
    assert at_start == sorted(at_start)
    assert rows["loss threshold", 6, "auc"] > rows["loss threshold", 6, "auc_null_high"]
    assert findings.headline["auc"] == rows["loss threshold", 6, "auc"]  # the latest
    assert findings.headline["train_accuracy"] == 1.0 == rows["model", 6, "train_accuracy"]
    assert rows["model", 0, "train_accuracy"] < 0.5
    assert findings.headline["test_accuracy"] < 0.95
    assert "above the null interval" in findings.conclusions[0]


def test_what_100_non_members_allow(victim):
    headline = found(victim).headline
    assert 0 <= headline["tpr_at_1_percent_fpr"] <= 1
    assert math.isnan(headline["tpr_at_0.1_percent_fpr"])
    assert any("it takes 1,000 non-members, not 100" in c for c in found(victim).conclusions)


def test_members_of_clients_that_no_round_asked_are_left_out(victim, tmp_path):
    asked = ("n_clients=5", "sampler=uniform", "cohort_size=2", "rounds=1", "model.hidden=[8]")
    few = found(victim_of(tmp_path, *digits(100, 100), *asked))
    assert any(line.startswith("Left out: 60 of the 100 training") for line in few.conclusions)
    assert (few.headline["n_members"], few.headline["n_non_members"]) == (40, 40)
    assert not any("Left out" in line for line in found(victim).conclusions)


def test_a_model_that_never_saw_either_side_does_not_tell_them_by_their_classes(tmp_path):
    pixels, reserve = digits(400, 400)
    few = torch.cat(
        [(pixels.train.y == c).nonzero().flatten()[: 40 if c < 5 else 4] for c in range(10)]
    )
    thinned = replace(pixels, train=pixels.train.rows(few))
    victim = victim_of(tmp_path, thinned, reserve, "n_clients=2", "rounds=1", "model.hidden=[8]")
    told = []
    for seed in range(20):
        drawn = torch.from_numpy(generator(seed, "test").normal(size=len(victim.models[0])) * 0.2)
        other = replace(victim, models={0: victim.models[0], 1: drawn.float()})
        findings = found(other)
        told.append(
            not findings.headline["auc_null_low"]
            <= findings.headline["auc"]
            <= findings.headline["auc_null_high"]
        )
    assert sum(told) <= 4
    assert any("have other classes than each other" in line for line in findings.conclusions)


def test_both_sides_are_equally_many(victim):
    headline = found(victim, most=40).headline
    assert (headline["n_members"], headline["n_non_members"]) == (40, 40)


def test_same_run_same_findings(victim):
    alone, together = found(victim, ["last"]), found(victim, [1, "last"])
    assert str(alone.headline) == str(together.headline)
    np.testing.assert_array_equal(alone.arrays["tpr"], together.arrays["tpr"])


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"rounds": []}, "names no round"),
        ({"most_examples": 0}, "most_examples=0"),
        ({"permutations": 10}, "permutations=10"),
    ],
)
def test_settings_that_mean_nothing(arguments, reason):
    with pytest.raises(InputError, match=reason):
        LossThreshold(
            **{"rounds": ["last"], "most_examples": None, "permutations": 40, **arguments}
        )


def test_the_yaml_is_the_study():
    node = OmegaConf.load(CONF / "leakage" / "loss_threshold.yaml").loss_threshold
    assert instantiate(node, _convert_="all") == LossThreshold(["last"], None, 1000)


def test_a_round_that_was_not_kept(victim):
    with pytest.raises(InputError, match=r"rounds=9: the run kept the models of rounds 0, 1"):
        found(victim, [9])


def test_it_never_writes_to_the_run(victim):
    before = victim.models[6].clone()
    found(victim)
    assert torch.equal(victim.models[6], before)
    assert list(victim.folder.iterdir()) == []
