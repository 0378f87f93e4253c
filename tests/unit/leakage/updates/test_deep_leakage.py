"""DLG and iDLG: real images out of one gradient, and out of five local steps."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from fedexp.core.checks import InputError
from fedexp.leakage.updates.deep_leakage import DeepLeakage
from fedexp.models import lenet
from tests.support.observing import (
    CLASSES,
    batches,
    digits,
    initialised,
    matched_mse,
    mnist,
    observed,
    psnr_db,
)

DATA = digits()
SHAPE = (1, 8, 8)
LENETS = {
    init: initialised(lenet, SHAPE, CLASSES, "sigmoid", init) for init in ("default", "uniform")
}
IDLG = DeepLeakage(labels="recovered", iterations=60, restarts=4, tolerance=1e-7, unrolled=False)
DLG = dataclasses.replace(IDLG, labels="joint")
QUICK = dataclasses.replace(IDLG, iterations=1, restarts=1)


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("init", LENETS)
@pytest.mark.parametrize("attack", [DLG, IDLG], ids=["dlg", "idlg"])
def test_images_of_digits_come_back_with_their_labels(attack, init):
    for seed, image in enumerate(batches(DATA, 1, 3)):
        found = attack(observed(LENETS[init], DATA, image), rng(seed))
        assert psnr_db(found.images, image.x) > 25
        assert found.labels.tolist() == image.y.tolist()
        assert found.loss < 1e-6


def test_the_plain_objective_is_a_sum_in_which_large_layers_count_more():
    observed_layers = {"a": torch.tensor([3.0, 4.0]), "b": torch.tensor([0.0])}
    # Errors of 2 and 1: 2 / 25 and 1 (no size to be measured by), on average; or 2 + 1.
    errors = {"a": 2.0, "b": 1.0}
    for objective, expected in (("relative", (2 / 25 + 1) / 2), ("plain", 3.0)):
        sizes = dataclasses.replace(DLG, objective=objective)._sizes(observed_layers)
        loss = sum(error / sizes[name] for name, error in errors.items()) / len(errors)
        assert loss == pytest.approx(expected)


@pytest.mark.slow
def test_the_papers_objective_finds_an_image_of_their_network():
    image = batches(DATA, 1, 1)[0]
    plain = dataclasses.replace(IDLG, objective="plain", restarts=1)
    found = plain(observed(LENETS["uniform"], DATA, image), rng())
    assert psnr_db(found.images, image.x) > 25


def test_a_batch_comes_back_in_any_order():
    batch = DATA.rows(torch.tensor([0, 1, 2]))
    assert len(set(batch.y.tolist())) == 3
    found = IDLG(observed(LENETS["default"], DATA, batch), rng())
    assert (matched_mse(found.images, batch.x) < 1e-2).all()
    assert sorted(found.labels.tolist()) == sorted(batch.y.tolist())


def test_unrolling_explains_local_steps_that_the_naive_reading_does_not():
    image = batches(DATA, 1, 1)[0]
    seen = observed(LENETS["default"], DATA, image, lr=0.3, local_steps=5)
    naive = dataclasses.replace(IDLG, restarts=1)(seen, rng())
    unrolled = dataclasses.replace(IDLG, unrolled=True)(seen, rng())
    assert psnr_db(unrolled.images, image.x) > 25
    assert psnr_db(unrolled.images, image.x) > psnr_db(naive.images, image.x) + 10
    assert unrolled.loss < 1e-6 < naive.loss


def test_on_one_step_unrolled_is_naive():
    seen = observed(LENETS["default"], DATA, batches(DATA, 1, 1)[0])
    naive = QUICK(seen, rng())
    unrolled = dataclasses.replace(QUICK, unrolled=True)(seen, rng())
    assert torch.equal(naive.images, unrolled.images)


def test_the_best_of_the_starts_counts_and_one_that_is_good_enough_ends_them():
    image = batches(DATA, 1, 1)[0]
    seen = observed(LENETS["uniform"], DATA, image)
    shared = rng(3)
    alone = [QUICK(seen, shared).loss for _ in range(4)]
    assert len(set(alone)) == 4
    together = dataclasses.replace(QUICK, restarts=4)(seen, rng(3))
    assert together.loss == min(alone)
    easy = dataclasses.replace(QUICK, restarts=4, tolerance=2 * max(alone))
    assert easy(seen, rng(3)).loss == alone[0]


def test_shared_labels_are_not_looked_for():
    image = batches(DATA, 1, 1)[0]
    seen = observed(LENETS["uniform"], DATA, image, labels=image.y)
    joint = dataclasses.replace(QUICK, labels="joint")
    assert torch.equal(joint(seen, rng()).images, QUICK(seen, rng()).images)


def test_an_update_that_is_not_finite_gives_pixels_all_the_same():
    seen = observed(LENETS["uniform"], DATA, batches(DATA, 1, 1)[0])
    seen = dataclasses.replace(seen, update=torch.full_like(seen.update, math.nan))
    found = DLG(seen, rng())
    assert found.images.min() >= 0
    assert found.images.max() <= 1
    assert found.loss == math.inf


def test_an_update_of_zeros_is_survived():
    seen = observed(LENETS["uniform"], DATA, batches(DATA, 1, 1)[0])
    found = QUICK(dataclasses.replace(seen, update=torch.zeros_like(seen.update)), rng())
    assert found.images.isfinite().all()
    assert math.isfinite(found.loss)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"labels": "jont"}, "labels=jont: did you mean joint?"),
        ({"iterations": 0}, "iterations=0: must be a whole number, 1 or above"),
        ({"restarts": 0}, "restarts=0"),
        ({"tolerance": -1.0}, "tolerance=-1.0"),
    ],
    ids=str,
)
def test_refusals(changed, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(IDLG, **changed)


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.parametrize("init", LENETS)
@pytest.mark.parametrize("attack", [DLG, IDLG], ids=["dlg", "idlg"])
def test_mnist_four_of_five_images_below_one_hundredth(attack, init):
    data = mnist()
    module = initialised(lenet, (1, 28, 28), CLASSES, "sigmoid", init)
    errors = [
        float(matched_mse(attack(observed(module, data, image), rng(seed)).images, image.x))
        for seed, image in enumerate(batches(data, 1, 50))
    ]
    assert sum(error < 1e-2 for error in errors) >= 40


@pytest.mark.slow
@pytest.mark.real_data
def test_mnist_relu_withstands_it():
    data = mnist()
    module = initialised(lenet, (1, 28, 28), CLASSES, "relu", "default")
    attack = dataclasses.replace(IDLG, restarts=1)
    errors = [
        float(matched_mse(attack(observed(module, data, image), rng(seed)).images, image.x))
        for seed, image in enumerate(batches(data, 1, 5))
    ]
    assert sum(error < 1e-2 for error in errors) <= 1
