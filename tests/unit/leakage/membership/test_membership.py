"""What membership attacks have in common: pools, phi, accuracies, and sentences from figures."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from fedexp.core.checks import InputError
from fedexp.core.examples import Split
from fedexp.core.flat import vector_of
from fedexp.core.normalise import Normalisation
from fedexp.core.rng import generator
from fedexp.core.workload import EVALUATION_BATCH
from fedexp.leakage.membership.answers import accuracies, negative_loss, true_class_logits
from fedexp.leakage.membership.judged import Judged, class_figures
from fedexp.leakage.membership.pool import Pool, members_of, of_other_classes, rounds_of
from tests.support.membership_victims import digits, nobody, victim_of

QUICK = ("model=logistic", "n_clients=4", "rounds=2", "training.epochs=1")
AS_IT_IS = Normalisation(torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1))


@pytest.fixture(scope="module")
def victim(tmp_path_factory):
    return victim_of(tmp_path_factory.mktemp("run"), *digits(120, 150), *QUICK)


def answering(*logits):
    """A model that gives these logits to every image, and the image."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, len(logits)))
    nn.init.zeros_(model[1].weight)
    model[1].bias.data = torch.tensor(logits)
    return model


def phi_of(logits, y):
    model = answering(*logits)
    example = Split(torch.zeros(1, 1, 1, 1), torch.tensor([y]))
    return float(true_class_logits(model, vector_of(model), AS_IT_IS, example)[0])


def test_phi_is_the_logit_of_the_probability():
    logits = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    for y, p in enumerate(logits.softmax(dim=0)):
        assert phi_of(logits.float().tolist(), y) == pytest.approx(float(torch.logit(p)))


@pytest.mark.parametrize(("y", "expected"), [(0, 100 - np.log(2)), (1, -100.0)])
def test_phi_does_not_round_where_probabilities_do(y, expected):
    assert phi_of([100.0, 0.0, 0.0], y) == pytest.approx(expected, abs=1e-9)
    assert phi_of([100.0, 0.0, 0.0], 0) < phi_of([101.0, 0.0, 0.0], 0)


def test_loss_from_phi_is_the_cross_entropy():
    logits = torch.tensor([[3.0, -1.0, 0.5]]).double()
    loss = nn.functional.cross_entropy(logits, torch.tensor([1]))
    phi = np.array([phi_of([3.0, -1.0, 0.5], 1), 60.0, 90.0])
    assert negative_loss(phi)[0] == pytest.approx(-float(loss))
    assert negative_loss(phi)[1] < negative_loss(phi)[2] < 0  # by heart, and even better by heart


def test_phi_takes_the_runs_normalisation_and_any_number_of_images():
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    x = torch.linspace(0, 1, EVALUATION_BATCH + 7).view(-1, 1, 1, 1)
    examples = Split(x, torch.zeros(len(x), dtype=torch.int64))
    scale = Normalisation(torch.full((1, 1, 1, 1), 0.25), torch.full((1, 1, 1, 1), 0.5))
    weight, bias = model[1].weight.detach().double(), model[1].bias.detach().double()
    logits = (x.double().flatten(1) - 0.25) / 0.5 @ weight.T + bias
    found = true_class_logits(model, vector_of(model), scale, examples)
    np.testing.assert_allclose(found, logits[:, 0] - logits[:, 1], rtol=1e-5, atol=1e-6)


def test_a_diverged_model_is_refused():
    with pytest.raises(InputError, match="its logits are not finite"):
        phi_of([float("nan"), 0.0], 0)


def rows(split):
    return {tuple(image.flatten().tolist()) for image in split.x}


def test_members_are_trained_on_and_non_members_are_not(victim):
    pool = Pool.of(victim)
    members = pool.examples.rows(torch.from_numpy(np.flatnonzero(pool.is_member)))
    others = pool.examples.rows(torch.from_numpy(np.flatnonzero(~pool.is_member)))
    assert len(members) == len(others) == 120  # of 150 in reserve
    assert rows(members) == rows(victim.pixels.train)
    assert rows(others) < rows(victim.reserve)


def test_without_a_reserve_the_test_part_gives_all_it_has(victim):
    few = replace(victim.pixels, test=victim.pixels.test.rows(torch.arange(50)))
    pool = Pool.of(replace(victim, reserve=nobody(), pixels=few))
    assert (pool.is_member.sum(), (~pool.is_member).sum()) == (120, 50)
    assert rows(pool.examples.rows(torch.arange(120, 170))) == rows(few.test)


def test_a_smaller_pool_is_drawn_from_both_sides(victim):
    members = members_of(victim)
    pool = Pool.drawn(victim, 30, members)
    assert (pool.is_member.sum(), (~pool.is_member).sum()) == (30, 30)
    assert rows(pool.examples.rows(torch.arange(30))) < rows(victim.pixels.train)
    again = Pool.drawn(victim, 30, members)
    assert torch.equal(again.examples.x, pool.examples.x)
    other = Pool.drawn(replace(victim, seed=1), 30, members)
    assert not torch.equal(other.examples.x, pool.examples.x)


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("setting=local_only", "setting=local_only: every client has a model of its own"),
        ("attack=label_flip", "attack=fedexp.attacks.label_flip.LabelFlip: its clients trained"),
        ("partition=feature", "Feature: members went through their client's scanner"),
    ],
)
def test_runs_in_which_members_differ_by_more(tmp_path, override, reason):
    run = victim_of(tmp_path, *digits(60, 60), *QUICK, "rounds=1", override)
    with pytest.raises(InputError, match=reason):
        Pool.of(run)


def test_an_attack_on_updates_changes_no_members(tmp_path):
    run = victim_of(tmp_path, *digits(60, 60), *QUICK, "rounds=1", "attack=sign_flip")
    assert rows(run.pixels.train) == rows(digits(60, 60)[0].train)
    malicious = run.partition.shards[np.flatnonzero(run.experiment.malicious)[0]]
    np.testing.assert_array_equal(np.flatnonzero(~members_of(run)), np.sort(malicious))
    pool = Pool.of(run)
    assert (pool.is_member.sum(), pool.clear.sum()) == (60, 120 - len(malicious))


@pytest.mark.parametrize("partition", ["partition=iid", "partition=virtual"])
def test_examples_of_clients_that_no_round_asked_are_not_asked_about(tmp_path, partition):
    asked = ("n_clients=6", "sampler=uniform", "cohort_size=2", "rounds=2", "model=logistic")
    run = victim_of(tmp_path, *digits(60, 60), *asked, partition)
    cohorts = [
        run.experiment.sampler(6, generator(run.seed, "cohort", round)).tolist()
        for round in range(2)
    ]
    for rounds in (1, 2):
        took_part = sorted({client for cohort in cohorts[:rounds] for client in cohort})
        trained = np.concatenate([run.partition.shards[client] for client in took_part])
        assert set(np.flatnonzero(members_of(run, rounds))) == set(trained.tolist())
    few = Pool.drawn(run, None, members_of(run))
    assert few.is_member.sum() == (~few.is_member).sum() == members_of(run).sum() < 60


def test_all_examples_of_a_centralised_run_are_members(tmp_path):
    run = victim_of(tmp_path, *digits(60, 60), *QUICK, "setting=centralised")
    assert members_of(run).all()


def test_accuracies_are_those_of_the_run(victim):
    params = victim.models[2]
    backend = victim.experiment.backend
    measured, _ = victim.experiment.evaluator(backend, [params], 2)
    (recorded,) = (m.value for m in measured if (m.scope, m.metric) == ("test", "accuracy"))
    found = accuracies(victim, params)
    assert found["test_accuracy"] == recorded
    assert found["train_accuracy"] != accuracies(victim, victim.models[0])["train_accuracy"]


def test_rounds_by_name_and_number(victim):
    assert rounds_of(victim, ["last", 1, "initial", 2]) == [0, 1, 2]
    for asked in ("final", 3, True):
        with pytest.raises(InputError, match=f"rounds={asked}: the run kept .* rounds 0, 1, 2"):
            rounds_of(victim, [asked])


def judged(members, non_members):
    scores = np.concatenate([members, non_members])
    labels = np.arange(len(scores)) < len(members)
    return Judged.of(scores, labels, 60, generator(0, "test_membership"))


def test_sentences_follow_the_figures():
    rng = generator(1, "test_membership")
    noise = rng.normal(size=4000)
    chance = judged(noise[:2000], noise[2000:]).conclusions("Guess")
    assert "inside the null interval" in chance[0]
    assert "inside the null interval" in chance[1]
    # One member in fifty stands out: nothing that an average would show.
    few = np.where(np.arange(2000) % 50 == 0, 9.0, noise[:2000])
    found = judged(few, noise[2000:])
    auc, percent, tenth = found.conclusions("Few")
    assert "above the null interval" in tenth
    assert f"{found.figures['tpr_at_0.1_percent_fpr'] / 0.001:.1f} times chance" in tenth
    assert "at most 2 of 2,000" in tenth
    assert "at most 20 of 2,000" in percent
    assert auc.startswith("Few: AUC 0.5")
    turned = judged(noise[:2000] - 1, noise[2000:]).conclusions("Turned")
    assert "below the null interval" in turned[0]


def test_what_cannot_be_measured_is_said():
    sentences = judged(np.arange(300.0), np.arange(300.0)).conclusions("x")
    assert sentences[2] == (
        "X: TPR at 0.1 % FPR is not measurable: it takes 1,000 non-members, not 300."
    )


def test_headline_rows_and_arrays_hold_the_same_figures():
    found = judged(np.arange(300.0) + 30, np.arange(200.0))
    headline = found.headline({"train_accuracy": 1.0})
    assert (headline["n_members"], headline["n_non_members"]) == (300, 200)
    by_metric = {row.metric: row.value for row in found.rows("x", 7)}
    assert {row.round for row in found.rows("x", 7)} == {7}
    for metric in ("auc", "auc_null_low", "auc_null_high", "tpr_at_1_percent_fpr_null_high"):
        assert headline[metric] == by_metric[metric]
    arrays = found.arrays()
    assert len(arrays["scores_members"]) == 300
    assert np.trapezoid(arrays["tpr"], arrays["fpr"]) == pytest.approx(headline["auc"])


def test_classes_with_a_handful_of_either_side_are_not_judged():
    rng = generator(0, "test_membership")
    labels = np.repeat([0, 1, 2], [60, 40, 2])
    is_member = np.arange(102) % 2 == 0
    scores = rng.normal(size=102) + 9 * (labels == 2) * is_member
    figures, (sentence,) = class_figures("LiRA", 1, scores, is_member, labels, ["a", "b", "c"])
    assert {figure.target for figure in figures} == {0, 1}
    assert sentence.startswith("LiRA: the mean AUC over the 2 of 3 classes with 5 of either side")


def test_scores_that_go_by_class_are_no_membership_where_the_classes_differ():
    y = torch.tensor([0] * 80 + [1] * 20 + [0] * 20 + [1] * 80)
    pool = Pool(Split(torch.zeros(200, 1), y), np.arange(200) < 100, np.ones(200, dtype=bool))
    rng = generator(0, "test_membership")
    figures = pool.judged(rng.normal(size=200) - 3 * y.numpy(), 200, rng).figures
    assert figures["auc_null_low"] < figures["auc"] < figures["auc_null_high"]
    assert figures["auc_null_low"] > 0.6
    (sentence,) = of_other_classes(pool)
    assert "shuffled within the classes" in sentence
    assert of_other_classes(pool.only(y.numpy() == 0)) == []
