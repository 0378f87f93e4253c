"""LiRA against loops typed from the paper, known answers, and runs that are and are not private."""

import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from fedexp.core import parallel
from fedexp.core.checks import InputError
from fedexp.core.normalise import Normalisation
from fedexp.core.rng import generator
from fedexp.leakage.membership import shadows
from fedexp.leakage.membership.answers import true_class_logits
from fedexp.leakage.membership.lira import LiRA, _by_halves_drawn_anew, all_but_pair
from fedexp.leakage.membership.loss_threshold import LossThreshold
from fedexp.leakage.membership.pool import Pool
from fedexp.leakage.membership.shadows import halves
from tests.support.composing import CONF, part
from tests.support.membership_victims import digits, victim_of


def lira(**changed):
    defaults = {
        "shadows": 8,
        "variant": "online",
        "variance": "per_example",
        "targets": "run",
        "permutations": 40,
    }
    return LiRA(**defaults | changed)


def naive(target, phi, inside, variant, variance):
    """Algorithm 1 of Carlini et al., an example at a time, with scipy's densities."""
    groups = [(phi[inside[:, i], i], phi[~inside[:, i], i]) for i in range(len(target))]
    pooled = [np.sqrt(np.mean([np.var(g[side], ddof=1) for g in groups])) for side in (0, 1)]
    scores = []
    for x, (seen, unseen) in zip(target, groups, strict=True):
        own = [np.std(seen, ddof=1), np.std(unseen, ddof=1)]
        s_in, s_out = pooled if variance == "global" else own
        if variant == "offline":
            scores.append(norm.logsf(x, np.mean(unseen), s_out))
        else:
            at = norm.logpdf(x, np.mean(seen), s_in)
            scores.append(at - norm.logpdf(x, np.mean(unseen), s_out))
    return np.array(scores)


@pytest.mark.parametrize("variant", ["online", "offline"])
@pytest.mark.parametrize("variance", ["per_example", "global"])
def test_scores_against_the_loop(variant, variance):
    rng = generator(0, "test_lira")
    inside = halves(0, 10, 40)
    phi = rng.normal(size=(10, 40)) + rng.normal(size=40) + inside
    target = rng.normal(size=40)
    found = lira(variant=variant, variance=variance).scores(target, phi, inside)
    if variant == "offline":
        found = norm.logsf(found)  # the paper's probability that a model without it is as sure
    np.testing.assert_allclose(found, naive(target, phi, inside, variant, variance))


def test_scores_by_hand():
    # In: 4 and 6, mean 5, variance 2. Out: 0 and 2, mean 1, variance 2. The model says 4.
    phi = np.array([[4.0], [0.0], [6.0], [2.0]])
    inside = np.array([[True], [False], [True], [False]])
    online = lira().scores(np.array([4.0]), phi, inside)
    assert online == pytest.approx([-((4 - 5) ** 2) / 4 + (4 - 1) ** 2 / 4])
    offline = lira(variant="offline").scores(np.array([4.0]), phi, inside)
    assert offline == pytest.approx([3 / math.sqrt(2)])


@pytest.mark.parametrize(("number", "as_if"), [(8, "global"), (62, "global"), (64, "per_example")])
def test_auto_is_global_below_64_shadows(number, as_if):
    rng = generator(0, "test_lira")
    inside = halves(0, number, 5)
    phi, target = rng.normal(size=(number, 5)), rng.normal(size=5)
    auto, named = lira(variance="auto"), lira(variance=as_if)
    np.testing.assert_array_equal(
        auto.scores(target, phi, inside), named.scores(target, phi, inside)
    )


def test_models_that_agree_to_the_last_bit_say_nothing():
    inside = halves(0, 4, 3)
    assert lira().scores(np.ones(3), np.ones((4, 3)), inside).tolist() == [0.0, 0.0, 0.0]


def test_hard_examples_hide_members_from_the_loss_but_not_from_lira():
    # How hard an example is varies ten times as much as what training on it adds: one deviation.
    n, number = 20_000, 64
    rng = generator(0, "test_lira")
    hard = rng.normal(scale=10, size=n)
    inside = halves(0, number, n)
    phi = rng.normal(size=(number, n)) + hard + inside
    member = np.arange(n) < n // 2
    target = rng.normal(size=n) + hard + member
    score = lira(variance="global").scores(target, phi, inside)
    best = norm.cdf(1 / math.sqrt(2))  # two normals of deviation 1, one apart
    assert roc_auc_score(member, score) == pytest.approx(best, abs=0.015)
    assert roc_auc_score(member, target) < 0.55


def test_leaving_out_a_pair_tells_nothing_where_there_is_nothing():
    number, n = 16, 4000
    rng = generator(0, "test_lira")
    inside = halves(0, number, n)
    phi = rng.normal(size=(number, n)) + rng.normal(scale=3, size=n)
    study = lira(variance="global")
    scores = []
    for target in range(number):
        others = all_but_pair(target, number)
        scores.append(study.scores(phi[target], phi[others], inside[others]))
    auc = roc_auc_score(inside.ravel(), np.concatenate(scores))
    assert auc == pytest.approx(0.5, abs=0.01)


def test_the_null_interval_of_shadows_that_attack_each_other_is_as_wide_as_chance_is():
    number, n = 10, 60
    study, rng = lira(variance="global"), generator(0, "test_lira")

    def phi():
        return rng.normal(size=(number, n)) + rng.normal(scale=3, size=n)

    drawn = [_by_halves_drawn_anew(rng, study, phi()).auc for _ in range(300)]
    one = phi()
    supposed = [_by_halves_drawn_anew(rng, study, one).auc for _ in range(300)]
    assert np.std(supposed) == pytest.approx(np.std(drawn), rel=0.2)
    labels = rng.permutation(halves(0, number, n).ravel())
    scores = rng.normal(size=number * n)
    shuffled = [roc_auc_score(rng.permutation(labels), scores) for _ in range(300)]
    assert np.std(shuffled) < 0.8 * np.std(drawn)  # which were taken for it once


@pytest.fixture(scope="module")
def victim(tmp_path_factory):
    return victim_of(
        tmp_path_factory.mktemp("run"),
        *digits(120, 120),
        "n_clients=2",
        "rounds=4",
        "training.epochs=4",
        "model.hidden=[32]",
    )


@pytest.fixture(autouse=True)
def one_process(monkeypatch, request):
    if request.node.get_closest_marker("slow") is None:
        monkeypatch.setattr(parallel, "available_cores", lambda: 1)


def test_a_run_is_attacked_with_shadows_of_its_own(victim):
    shares = []
    findings = lira()(victim, shares.append)
    assert shares == sorted(shares)
    assert (len(shares), shares[-1]) == (9, 1.0)
    pool = Pool.of(victim)
    kept = sorted((victim.folder / "leakage" / "shadows").iterdir())
    tensors = [safetensors.torch.load_file(path) for path in kept]
    inside = np.stack([each["inside"].numpy() for each in tensors])
    assert inside.shape == (8, 240)
    np.testing.assert_array_equal(inside[::2], ~inside[1::2])
    phi = []
    for each, row in zip(tensors, inside, strict=True):
        scale = Normalisation.of(pool.examples.rows(torch.from_numpy(np.flatnonzero(row))))
        phi.append(true_class_logits(victim.model, each["params"], scale, pool.examples))
    own = true_class_logits(victim.model, victim.models[4], victim.normalisation, pool.examples)
    expected = naive(own, np.stack(phi), inside, "online", "per_example")
    np.testing.assert_allclose(findings.arrays["scores_members"], expected[:120])
    np.testing.assert_allclose(findings.arrays["scores_non_members"], expected[120:])
    headline = findings.headline
    assert headline["auc"] == pytest.approx(roc_auc_score(pool.is_member, expected))
    assert (headline["n_members"], headline["n_non_members"]) == (120, 120)
    assert math.isnan(headline["tpr_at_0.1_percent_fpr"])
    assert headline["train_accuracy"] > headline["test_accuracy"]
    assert any(
        "The run's clients hold 120 examples, a shadow's 120." in c for c in findings.conclusions
    )


def test_it_stands_beside_the_loss_threshold_on_the_same_examples(victim):
    findings = lira()(victim, lambda share: None)
    rows = {(f.subject, f.metric): f.value for f in findings.figures}
    alone = LossThreshold(["last"], None, 40)(victim, lambda share: None)
    assert rows["loss threshold", "auc"] == alone.headline["auc"]
    assert rows["LiRA online", "auc"] == findings.headline["auc"]


def test_a_second_attack_of_another_kind_trains_nothing(victim, monkeypatch):
    lira()(victim, lambda share: None)
    monkeypatch.setattr(shadows, "_train", lambda job: pytest.fail("trained again"))
    shares = []
    findings = lira(variant="offline", variance="global", targets="shadows")(victim, shares.append)
    assert (findings.headline["n_members"], findings.headline["n_non_members"]) == (960, 960)
    assert math.isfinite(findings.headline["tpr_at_1_percent_fpr"])
    assert any("the 8 shadows, each by the others" in c for c in findings.conclusions)
    again = lira(variant="offline", variance="global", targets="shadows")(victim, shares.append)
    assert str(again.headline) == str(findings.headline)


def test_shadows_smaller_than_the_run_are_admitted(victim):
    few = replace(victim, reserve=victim.reserve.rows(torch.arange(20)), folder=victim.folder / "b")
    conclusions = lira(shadows=4)(few, lambda share: None).conclusions
    assert any("hold 120 examples, a shadow's 70: shadows know" in c for c in conclusions)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"shadows": 7}, "shadows=7: must be an even number"),
        ({"shadows": 2}, "shadows=2: must be an even number, 4 or above"),
        ({"shadows": 4, "targets": "shadows"}, "shadows=4: targets=shadows leaves a pair out"),
        ({"variant": "on"}, "variant=on: did you mean online"),
        ({"variance": "both"}, "Allowed: per_example, global, auto"),
        ({"targets": "all"}, "Allowed: run, shadows"),
        ({"permutations": 0}, "permutations=0"),
    ],
)
def test_settings_that_mean_nothing(changed, reason):
    with pytest.raises(InputError, match=reason):
        lira(**changed)


def test_the_yaml_is_the_study():
    study = instantiate(OmegaConf.load(CONF / "leakage" / "lira.yaml").lira, _convert_="all")
    assert study == LiRA(32, "online", "auto", "run", 1000)


OVERFITTED = ("model.hidden=[64]", "n_clients=5", "rounds=20", "eval_every=20")


def attacked(victim, shadows=32, targets="run"):
    """Metrics by subject, of a study with many shadows."""
    study = lira(shadows=shadows, variance="global", permutations=200, targets=targets)
    by_subject = {}
    for figure in study(victim, lambda share: None).figures:
        by_subject.setdefault(figure.subject, {})[figure.metric] = figure.value
    return by_subject


@pytest.mark.slow
def test_a_loss_that_looks_safe_and_members_that_are_named_all_the_same(tmp_path):
    run = victim_of(tmp_path, *digits(628, 628), *OVERFITTED, "training.epochs=5")
    found = attacked(run, targets="shadows")
    loss, online, offline = found["loss threshold"], found["LiRA online"], found["LiRA offline"]
    assert found["model"]["train_accuracy"] > 0.99
    assert 0.5 < loss["auc"] < 0.55
    assert loss["tpr_at_0.1_percent_fpr"] < 0.003
    assert 0.57 < offline["auc"] < online["auc"] < 0.66
    assert online["tpr_at_0.1_percent_fpr"] > 0.01  # ten times chance
    # One run is attacked as well as the pool of all promises, but measured less sharply.
    alone = attacked(run)["LiRA online"]
    assert alone["auc"] > alone["auc_null_high"]
    assert alone["auc"] == pytest.approx(online["auc"], abs=0.06)


PRIVATE = (
    "setting=centralised",
    "n_clients=1",
    "rounds=20",
    "eval_every=20",
    "model.hidden=[64]",
    "training.epochs=1",
    "training.batch_size=64",
    "training.lr=1",
    "privacy=dp_sgd",
    "privacy.noise_multiplier=2",
    "privacy.delta=1e-4",
)


SUBJECTS = ("LiRA online", "LiRA offline", "loss threshold")


@pytest.mark.slow
def test_dp_sgd_hides_the_members_that_could_be_named(tmp_path):
    run = victim_of(tmp_path, *digits(628, 628), *PRIVATE)  # epsilon 2.9
    alone = attacked(run)
    assert alone["model"]["test_accuracy"] > 0.75  # it has learned; 0.79 to 0.81 were seen
    for subject in ("loss threshold", "LiRA online"):
        figures = alone[subject]
        for metric in ("auc", "tpr_at_1_percent_fpr"):
            assert figures[metric] <= figures[f"{metric}_null_high"], (subject, metric)
    # Over 32 models at once the train-test gap of 2 points shows, but nobody is named.
    pooled = attacked(run, targets="shadows")
    for subject in SUBJECTS:
        figures, metric = pooled[subject], "tpr_at_0.1_percent_fpr"
        assert figures[metric] <= figures[f"{metric}_null_high"], subject
        assert figures["auc"] < 0.55


def mnist(n):
    """A training part of n images of MNIST, and as many others, drawn at random."""
    whole = part("dataset", "mnist")(Path(os.environ["FEDEXP_DATA_DIR"]))
    order = torch.from_numpy(generator(0, "train_examples").permutation(len(whole.train)))
    train, reserve = whole.train.rows(order[:n]), whole.train.rows(order[n : 2 * n])
    return replace(whole, train=train), reserve


MNIST = ("dataset=mnist", "n_clients=10", "rounds=20", "eval_every=20")


@pytest.mark.slow
@pytest.mark.real_data
def test_lira_names_members_of_an_overfitted_mnist_run_and_the_loss_does_not(tmp_path):
    run = victim_of(tmp_path, *mnist(2000), *MNIST, "training.epochs=5")
    found, metric = attacked(run, shadows=16), "tpr_at_0.1_percent_fpr"
    assert found["model"]["train_accuracy"] > 0.99
    assert found["loss threshold"][metric] <= found["loss threshold"][f"{metric}_null_high"]
    for subject in ("LiRA online", "LiRA offline"):
        assert found[subject][metric] > found[subject][f"{metric}_null_high"]
        assert found[subject][metric] > 0.01  # ten times chance


@pytest.mark.slow
@pytest.mark.real_data
def test_lira_names_nobody_in_an_mnist_run_with_dp_sgd(tmp_path):
    settings = ("training.epochs=1", "training.batch_size=20", "training.lr=0.5")
    private = ("privacy=dp_sgd", "privacy.delta=1e-4")  # noise 1, epsilon 8.6
    run = victim_of(tmp_path, *mnist(2000), *MNIST, *settings, *private)
    found, metric = attacked(run, shadows=16), "tpr_at_0.1_percent_fpr"
    assert found["model"]["test_accuracy"] > 0.7
    for subject in SUBJECTS:
        assert found[subject][metric] <= found[subject][f"{metric}_null_high"], subject
    for subject in ("LiRA online", "loss threshold"):
        assert found[subject]["auc"] <= found[subject]["auc_null_high"], subject
