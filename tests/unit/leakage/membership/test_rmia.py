"""RMIA against the paper's pairwise score, known answers, and shadows that are trained once."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from fedexp.core import parallel
from fedexp.core.checks import InputError
from fedexp.core.rng import generator
from fedexp.leakage.membership import shadows
from fedexp.leakage.membership.lira import LiRA
from fedexp.leakage.membership.rmia import RMIA
from fedexp.leakage.membership.shadows import halves
from fedexp.store.entries import Store
from fedexp.store.use import using
from tests.support.membership_victims import digits, victim_of

QUICK = ("n_clients=3", "rounds=2", "training.epochs=1", "model.hidden=[8]")


def rmia(**changed):
    return RMIA(**{"references": 2, "variant": "online", "a": 0.3, "permutations": 40} | changed)


def test_a_case_by_hand():
    # p = 0.8 under the model; 0.6 with it, 0.2 without: 0.8 / 0.4. Offline (1.3 * 0.2 + 0.7) / 2.
    log_p, inside = np.log([[0.6], [0.2]]), np.array([[True], [False]])
    target = np.log([0.8])
    assert np.exp(rmia().scores("online", target, log_p, inside)) == pytest.approx([2.0])
    offline = rmia().scores("offline", target, log_p, inside)
    assert np.exp(offline) == pytest.approx([0.8 / 0.48])
    surest = rmia(a=1).scores("offline", target, log_p, inside)
    assert np.exp(surest) == pytest.approx([0.8 / 0.2])


@pytest.mark.parametrize("variant", ["online", "offline"])
@pytest.mark.parametrize("gamma", [1.0, 2.0])
def test_it_ranks_as_the_paper_does_by_pairs(variant, gamma):
    """Score of x: the share of z with ratio(x) / ratio(z) >= gamma, an example at a time."""
    rng = generator(0, "test_rmia")
    inside = halves(0, 4, 300)
    p, target = rng.uniform(0.2, 1, (4, 300)), rng.uniform(0.2, 1, 300)
    world = []
    for j in range(300):
        seen, unseen = p[inside[:, j], j].mean(), p[~inside[:, j], j].mean()
        world.append((seen + unseen) / 2 if variant == "online" else (1.3 * unseen + 0.7) / 2)
    ratio = target / np.array(world)
    population = ratio[rng.permutation(300)[:200]]
    pairs = np.array([np.mean(r / population >= gamma) for r in ratio])
    found = rmia(references=4).scores(variant, np.log(target), np.log(p), inside)
    truth = rng.random(300) < 0.5 + 0.3 * (ratio - ratio.mean())
    assert (np.diff(pairs[np.argsort(found)]) >= 0).all()
    if gamma == 1:
        assert roc_auc_score(truth, found) == pytest.approx(roc_auc_score(truth, pairs), abs=0.01)


def test_probabilities_that_round_to_0_keep_their_order():
    log_p, inside = np.array([[-900.0, -800.0], [-900.0, -800.0]]), np.array([[1, 1], [0, 0]]) > 0
    found = rmia().scores("online", np.array([-800.0, -800.0]), log_p, inside)
    assert found == pytest.approx([100.0, 0.0])


@pytest.fixture
def trainings(monkeypatch):
    monkeypatch.setattr(parallel, "available_cores", lambda: 1)
    numbers, train = [], shadows._train
    monkeypatch.setattr(shadows, "_train", lambda job: numbers.append(job.path.stem) or train(job))
    return numbers


def test_a_second_study_of_another_run_trains_none(tmp_path, trainings):
    """RMIA trains four; LiRA, and a run of another seed in another folder, find them."""
    first = victim_of(tmp_path / "a", *digits(50, 50), *QUICK)
    second = victim_of(tmp_path / "b", *digits(50, 50), *QUICK, "seed=1")
    with using(Store(tmp_path / "store")):
        found = rmia(references=4)(first, lambda share: None)
        assert len(trainings) == 4
        LiRA(4, "online", "auto", "run", 40)(first, lambda share: None)
        other = rmia(references=4)(second, lambda share: None)
        LiRA(4, "online", "auto", "run", 40)(second, lambda share: None)
    assert len(trainings) == 4
    assert found.headline["n_members"] == 50
    assert found.headline["auc"] != other.headline["auc"]  # another run was attacked


def test_one_reference_is_asked_about_the_half_that_it_has_not_seen(tmp_path, trainings):
    victim = victim_of(tmp_path, *digits(50, 50), *QUICK)
    found = rmia(references=1, variant="offline")(victim, lambda share: None)
    assert found.headline["n_members"] + found.headline["n_non_members"] == 50
    assert len(trainings) == 1
    assert found.adversaries == {"": "outsider"}
    rmia(references=2)(victim, lambda share: None)
    assert len(trainings) == 2  # the one that was there, and its pair


def test_members_of_other_classes_are_judged_within_them(tmp_path, trainings):
    pixels, reserve = digits(200, 100)
    low = (pixels.train.y < 5).nonzero().flatten()
    thinned = replace(pixels, train=pixels.train.rows(low))
    victim = victim_of(tmp_path, thinned, reserve, *QUICK)
    for study in (rmia(), LiRA(4, "online", "auto", "run", 40)):
        found = study(victim, lambda share: None)
        assert any("shuffled within the classes" in line for line in found.conclusions)
        rows = {(f.subject, f.metric): f.value for f in found.figures}
        assert rows["loss threshold", "auc_null_low"] > 0.6  # what the classes alone tell


def test_members_that_nobody_trained_on_are_not_asked_about(tmp_path, trainings):
    asked = ("n_clients=5", "sampler=uniform", "cohort_size=2", "rounds=1", "model.hidden=[8]")
    victim = victim_of(tmp_path, *digits(100, 100), *asked)
    for study in (rmia(), LiRA(4, "online", "auto", "run", 40)):
        found = study(victim, lambda share: None)
        assert (found.headline["n_members"], found.headline["n_non_members"]) == (40, 100)
        assert any(line.startswith("Left out: 60 of the 100") for line in found.conclusions)
        assert any(line.startswith("A shadow has clients, too") for line in found.conclusions)
    pooled = LiRA(6, "online", "auto", "shadows", 40)(victim, lambda share: None)
    assert pooled.headline["n_members"] == 6 * 100
    assert any("shadows leak more than the figures say" in line for line in pooled.conclusions)


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ({"references": 3}, "references"),
        ({"references": True}, "references"),
        ({"references": 1}, "variant"),
        ({"variant": "both"}, "variant"),
        ({"a": 1.5}, "a"),
        ({"permutations": 5}, "permutations"),
        ({"confidence": "softmax"}, "confidence"),
    ],
)
def test_settings_that_give_no_answer(changed, key):
    with pytest.raises(InputError) as refusal:
        rmia(**changed)
    assert refusal.value.key == key
