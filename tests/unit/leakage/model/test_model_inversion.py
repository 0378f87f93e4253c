"""Model inversion: known optima, a trained and an untrained model, and what the gap can tell."""

import math
import os
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fedexp.config.build import build
from fedexp.core.checks import InputError
from fedexp.core.flat import vector_of
from fedexp.core.rng import generator
from fedexp.data.loader import load
from fedexp.federation.rounds import initial_state, run_rounds
from fedexp.leakage.model.bench import Bench
from fedexp.leakage.model.conclusions import on_memorisation
from fedexp.leakage.model.inversion import invert
from fedexp.leakage.updates.image_scores import total_variation
from fedexp.leakage.victim import Victim
from tests.support.composing import config_for, part

RECIPE = {"restarts": 1, "steps": 100, "lr": 0.05, "tv_weight": 0.0, "l2_weight": 0.0}


def rng(i=0):
    return generator(i, "test_model_inversion")


def study(**changes):
    return replace(part("leakage", "model_inversion"), **changes)


def quick(**changes):
    return study(steps=150, restarts=1, **changes)


def victim_of(pixels, *overrides):
    """A run of ten clients in this process, with its first and last model."""
    config = config_for("backend=in_process", "partition=iid", *overrides)
    built = build(config, pixels)
    models = {0: vector_of(built.model)}
    for state, _ in run_rounds(built.experiment, initial_state(built.experiment, models[0])):
        models[state.round] = state.params.clone()
    found = Victim.of(Path(), config, built, models)
    return replace(found, reserve=pixels.test.rows(torch.tensor([], dtype=torch.int64)))


@pytest.fixture(scope="module")
def victim():
    return victim_of(load(part("dataset", "digits"), Path()), "rounds=5", "eval_every=5")


@pytest.fixture(scope="module")
def findings(victim):
    return quick()(victim, lambda share: None)


def means(findings):
    values = defaultdict(list)
    for figure in findings.figures:
        values[figure.subject, figure.metric].append(figure.value)
    return {key: float(np.mean(v)) for key, v in values.items()}


def linear(weights):
    """Logits of a model `[classes, pixels]` without bias."""
    return lambda pixels: pixels.flatten(1) @ weights.T


def test_the_picture_that_a_linear_model_likes_best():
    weights = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    images, logits = invert(
        linear(weights), torch.tensor([2, 0, 1, 2]), (1, 8, 8), **RECIPE, rng=rng()
    )
    wanted = weights[[2, 0, 1, 2]]
    assert torch.equal(images.flatten(1), (wanted > 0).float())
    torch.testing.assert_close(logits, wanted.clamp_min(0).sum(dim=1))


def test_the_restart_with_the_highest_logit_is_kept():
    # Uphill from below .45 is black, 5 x .45^2; from above white, 5 x .55^2.
    def logits(pixels):
        return 5 * (pixels.flatten(1)[:, :1] - 0.45).square()

    classes = torch.zeros(40, dtype=torch.int64)
    once, _ = invert(logits, classes, (1, 1, 1), **RECIPE, rng=rng())
    assert 0 < float(once.mean()) < 1
    images, reached = invert(logits, classes, (1, 1, 1), **RECIPE | {"restarts": 10}, rng=rng())
    assert images.eq(1).all()
    assert reached.tolist() == pytest.approx([5 * 0.55**2] * 40)


def test_priors_make_pictures_smooth_and_dark():
    weights = torch.randn(1, 64, generator=torch.Generator().manual_seed(0)) + 0.5
    classes = torch.zeros(5, dtype=torch.int64)

    def picture(**priors):
        return invert(linear(weights), classes, (1, 8, 8), **RECIPE | priors, rng=rng())[0]

    plain, smooth, dark = picture(), picture(tv_weight=0.1), picture(l2_weight=0.5)
    assert float(total_variation(smooth).mean()) < 0.5 * float(total_variation(plain).mean())
    assert float(dark.mean()) < 0.9 * float(plain.mean())


def test_the_recipe_does_not_depend_on_the_scale_of_the_logits():
    weights = torch.randn(2, 64, generator=torch.Generator().manual_seed(0))
    recipe = RECIPE | {"tv_weight": 0.1, "l2_weight": 0.4}
    classes = torch.tensor([0, 1])
    one, _ = invert(linear(weights), classes, (1, 8, 8), **recipe, rng=rng())
    hundred, _ = invert(linear(100 * weights), classes, (1, 8, 8), **recipe, rng=rng())
    torch.testing.assert_close(one, hundred, rtol=0, atol=1e-3)


def test_a_trained_model_shows_its_classes_and_an_untrained_one_does_not(findings):
    mean = means(findings)
    assert mean["inversion", "evaluation_accuracy"] >= 0.9
    assert mean["untrained model", "evaluation_accuracy"] <= 0.4
    assert mean["noise", "evaluation_accuracy"] <= 0.2
    assert mean["class mean", "evaluation_accuracy"] == 1.0
    assert mean["held-out image", "evaluation_accuracy"] >= 0.9
    assert mean["inversion", "ssim_to_class_mean"] > 0.5
    assert mean["class mean", "ssim_to_class_mean"] > 0.8
    for subject in ("untrained model", "noise"):
        assert abs(mean[subject, "ssim_to_class_mean"]) < 0.2
    assert mean["inversion", "test_accuracy"] > 0.9
    assert mean["untrained model", "test_accuracy"] < 0.3


def test_fifty_pictures_are_judged(findings):
    judged = [f for f in findings.figures if f.metric == "evaluation_accuracy"]
    assert [f.target for f in judged if f.subject == "inversion"] == list(range(50))
    assert {f.round for f in judged if f.subject == "inversion"} == {5}
    assert {f.round for f in judged if f.subject == "untrained model"} == {0}
    assert not any("usual" in sentence for sentence in findings.conclusions)


def test_the_headline_is_made_of_the_figures(findings):
    mean, head = means(findings), findings.headline
    for metric in ("evaluation_accuracy", "ssim_to_class_mean", "memorisation_gap"):
        assert head[metric] == pytest.approx(mean["inversion", metric])
        assert head[f"{metric}_low"] <= head[metric] <= head[f"{metric}_high"]
    assert head["test_accuracy"] == mean["inversion", "test_accuracy"]
    assert head["evaluation_classifier_accuracy"] > 0.9
    assert all(math.isfinite(value) for value in head.values())


def test_conclusions_follow_from_the_figures(victim, findings):
    inverted, beyond, *_ = findings.conclusions
    assert inverted.startswith("The model of round 5 is right on 0.9")
    assert "of 50 inverted pictures" in inverted
    assert "the weights show what classes look like" in beyond
    nothing = quick(rounds=["initial"])(victim, lambda share: None)
    assert "no more than from an untrained model" in nothing.conclusions[1]


def test_one_picture_a_class_is_kept_to_look_at(victim, findings):
    arrays = findings.arrays
    assert arrays["classes"].tolist() == list(range(10))
    for name in ("inverted", "untrained", "class_mean"):
        assert arrays[name].shape == (10, 1, 8, 8)
        assert arrays[name].min() >= 0
        assert arrays[name].max() <= 1
    threes = victim.pixels.train.x[victim.pixels.train.y == 3]
    np.testing.assert_allclose(arrays["class_mean"][3], threes.mean(dim=0).numpy(), atol=1e-6)


def test_it_is_the_same_every_time_and_leaves_the_victim_alone(victim, findings):
    before = {round: model.clone() for round, model in victim.models.items()}
    torch.rand(3)  # what ran before does not matter
    shares = []
    again = quick()(victim, shares.append)
    assert again.figures == findings.figures
    assert again.headline == findings.headline
    assert list(again.conclusions) == list(findings.conclusions)
    assert all(np.array_equal(again.arrays[k], findings.arrays[k]) for k in findings.arrays)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert all(torch.equal(before[r], victim.models[r]) for r in before)
    assert all(p.requires_grad and p.grad is None for p in victim.model.parameters())


def test_several_rounds_and_few_pictures(victim):
    found = quick(rounds=["initial", "last", 2], pictures_per_class=2)(victim, lambda share: None)
    of_round = defaultdict(dict)
    for f in found.figures:
        if f.subject == "inversion" and f.metric == "evaluation_accuracy":
            of_round[f.round][f.target] = f.value
    assert {round: len(values) for round, values in of_round.items()} == {0: 20, 2: 20, 5: 20}
    untrained = [f.value for f in found.figures if f.subject == "untrained model"]
    initial = [f.value for f in found.figures if f.subject == "inversion" and f.round == 0]
    assert untrained == initial
    assert found.headline["evaluation_accuracy"] == np.mean(list(of_round[5].values()))
    assert found.conclusions[-1] == "Only 20 pictures were judged; 50 are usual."


def test_classes_that_nobody_trained_on_are_left_out(victim):
    y = victim.pixels.train.y.numpy()
    shards = tuple(shard[y[shard] != 7] for shard in victim.partition.shards)
    without = replace(victim, partition=replace(victim.partition, shards=shards))
    found = quick(pictures_per_class=1)(without, lambda share: None)
    assert found.arrays["classes"].tolist() == [0, 1, 2, 3, 4, 5, 6, 8, 9]
    assert found.arrays["inverted"].shape == (9, 1, 8, 8)


def test_copies_of_training_images_are_found_out_and_other_images_are_not(victim):
    bench = Bench.of(victim, compared=9)
    labels = bench.classes.repeat_interleave(5)
    copies = torch.cat([bench.pairs[label][0][:5] for label in bench.classes.tolist()])
    others = torch.cat([bench.baseline.x[bench.baseline.y == c][:5] for c in bench.classes])
    found, innocent = bench.judge(copies, labels), bench.judge(others, labels)
    assert found.scores["max_ssim_trained_on"].tolist() == pytest.approx([1.0] * 50)
    assert found.intervals["memorisation_gap"].low > 0
    assert innocent.intervals["memorisation_gap"].holds(0)
    assert "something of the examples trained on shows" in on_memorisation(found, innocent)
    assert "nothing shows" in on_memorisation(innocent, innocent)
    assert "the two sets differ" in on_memorisation(found, found)


def test_images_compared_are_as_many_trained_on_as_held_out(victim):
    bench = Bench.of(victim, compared=6)
    trained = {image.numpy().tobytes() for image in victim.pixels.train.x}
    for seen, unseen in bench.pairs.values():
        assert len(seen) == len(unseen) == 6
        assert all(image.numpy().tobytes() in trained for image in seen)
        assert not any(image.numpy().tobytes() in trained for image in unseen)
    assert {len(seen) for seen, _ in Bench.of(victim, 10_000).pairs.values()} <= {8, 9, 10}


def test_classes_of_which_nothing_is_held_out_have_no_gap(victim):
    test = victim.pixels.test
    reserve = test.rows(torch.cat([(test.y == c).nonzero()[:4, 0] for c in range(8)]))
    found = quick(pictures_per_class=2)(replace(victim, reserve=reserve), lambda share: None)
    gaps = [f for f in found.figures if f.metric == "memorisation_gap" and f.subject == "inversion"]
    assert [f.target for f in gaps] == list(range(16))
    assert found.headline["memorisation_gap"] == pytest.approx(np.mean([f.value for f in gaps]))
    assert all(math.isfinite(figure.value) for figure in found.figures)


def test_a_judge_needs_held_out_images(victim):
    reserve = victim.pixels.test.rows(torch.tensor([0]))
    with pytest.raises(InputError, match="needs held-out examples of two or more"):
        quick()(replace(victim, reserve=reserve), lambda share: None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rounds": "last"}, "rounds=last: must be a list"),
        ({"rounds": []}, r"rounds=\[\]: must be a list"),
        ({"rounds": ["lsat"]}, "did you mean last"),
        ({"rounds": [-1]}, "rounds=-1"),
        ({"rounds": [True]}, "rounds=True"),
        ({"pictures_per_class": 0}, "pictures_per_class=0"),
        ({"restarts": 0}, "restarts=0"),
        ({"steps": 0}, "steps=0"),
        ({"lr": 0.0}, "lr=0.0"),
        ({"tv_weight": -1.0}, "tv_weight=-1.0"),
        ({"l2_weight": float("nan")}, "l2_weight=nan"),
        ({"compared": 0}, "compared=0"),
    ],
)
def test_what_cannot_be_meant(changes, message):
    with pytest.raises(InputError, match=message):
        study(**changes)


def test_a_round_that_was_not_kept(victim):
    with pytest.raises(InputError, match="rounds=9: "):
        quick(rounds=[9])(victim, lambda share: None)


def test_a_model_that_diverged(victim):
    broken = replace(victim, models={**victim.models, 5: victim.models[5] * float("nan")})
    with pytest.raises(InputError, match="rounds=5: the model of this round has weights"):
        quick()(broken, lambda share: None)


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.parametrize("model", ["mlp", "small_cnn"])
def test_mnist_classes_are_recognised(model):
    data = load(part("dataset", "mnist"), Path(os.environ["FEDEXP_DATA_DIR"]))
    drawn = torch.from_numpy(rng().permutation(len(data.train)))
    pixels = replace(data, train=data.train.rows(drawn[:1000]))
    run = victim_of(
        pixels, "dataset=mnist", f"model={model}", "training.lr=0.05", "training.epochs=1"
    )
    reserve = data.train.rows(drawn[1000:5000]).as_floats()
    found = study()(replace(run, reserve=reserve), lambda share: None)
    assert found.headline["test_accuracy"] > 0.8
    assert found.headline["evaluation_accuracy"] >= 0.9
    assert found.headline["ssim_to_class_mean"] > 0.2
